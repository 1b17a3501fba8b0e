"""What no schema says about a Capability: its parameters, and the numbers of its versions.

That a published version never changes is a rule of the definition itself.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from triplane.admission.asked import Asked, Outcome, Reads
from triplane.api.capability import CapabilitySpec, Lens
from triplane.domain.admission import Violation, twin_violations
from triplane.domain.lens import capability_problems


class LensCheck:
    """Refuses lenses that no Task could use. What stands in the object already was judged when it came."""

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``asked.Check``."""
        del reads  # the object tells everything
        if asked.kind != "Capability":
            return Outcome()
        known = _known(asked.old)
        found = [each for each in _problems(asked.object) if each not in known]
        return Outcome(tuple(found))


def _known(old: Mapping[str, Any] | None) -> tuple[Violation, ...]:
    try:
        return () if old is None else _problems(old)
    except ValidationError:  # stored by a release with other rules: then all of the new one is judged
        return ()


def _problems(obj: Mapping[str, Any]) -> tuple[Violation, ...]:
    spec = CapabilitySpec.model_validate(obj.get("spec") or {})
    found = [Violation(field, message) for field, message in capability_problems(spec)]
    lenses: list[tuple[str, Lens]] = [("spec", spec)]
    lenses += [(f"spec.versions[{item.version}]", item) for item in spec.versions or ()]
    for field, lens in lenses:
        for label in lens.parameters or ():
            found += twin_violations(f"{field}.parameters[{label.name}].options", label.options or ())
    return tuple(found)
