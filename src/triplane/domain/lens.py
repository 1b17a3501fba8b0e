"""Lenses: which version of a Capability a Task gets, and what its instructions say with the Task's values put in.

A name alone stands for the newest published version that is not archived, or for the draft while nothing is published;
``name@version`` for that version, archived or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from triplane.api.capability import Capability, CapabilitySpec, LabelType, Lens, PublishedLens
from triplane.audit.digest import digest_of_json
from triplane.domain.parameters import declaration_problems, known, mismatch, named_in, put_into

_LISTS = ("parameters", "inputs", "outputs")
Problem = tuple[str, str]
"""``(reason, message)``."""
OF_FILES = "parameters"
"""Inputs of this name hold the blobs that File parameters name: ``/work/inputs/parameters/<label>``."""


@dataclass(frozen=True, slots=True)
class CapabilityUse:
    """A required capability, as ``spec.requiredCapabilities`` spells it."""

    name: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> "CapabilityUse":
        """``name`` or ``name@version``; the schema has seen to the form."""
        name, _, version = text.partition("@")
        return cls(name, int(version) if version else None)


def bare_names(required: Sequence[str] | None) -> tuple[str, ...]:
    """The names alone, each once, in order: what an Agent must have, and authority must grant."""
    return tuple(dict.fromkeys(item.partition("@")[0] for item in required or ()))


@dataclass(frozen=True, slots=True)
class ChosenLens:
    """The version of a Capability that a session gets, with values put into its instructions."""

    name: str
    uid: str
    generation: int | None
    """Of the Capability whose draft it is; None: published, and so the same at every generation."""
    version: int | None
    """None: the draft."""
    lens: Lens
    digest: str
    """Of the lens as it is declared."""
    instructions: str | None
    owner: str
    """How messages call it."""

    @property
    def label(self) -> str:
        """``name@version``, or ``name`` of a draft."""
        return self.name if self.version is None else f"{self.name}@{self.version}"


def choose(capability: Capability, version: int | None) -> ChosenLens | Problem:
    """The lens that this version, or None, stands for; ``(reason, message)`` when there is none."""
    name, spec = capability.metadata.name, capability.spec
    published = spec.versions or []
    if version is not None:
        found = next((item for item in published if item.version == version), None)
        if found is None:
            numbers = ", ".join(str(item.version) for item in published) or "none"
            return (
                "CapabilityVersionNotFound",
                f"Capability {name} has no version {version}; published: {numbers}. Publish it, or name another",
            )
        return _chosen(capability, found)
    if not published:
        return _chosen(capability, draft(spec))
    newest = newest_version(spec)
    if newest is None:
        return (
            "CapabilityVersionNotFound",
            f"every version of Capability {name} is archived: publish another (`triplane capability publish {name}`), "
            f"or require one of them by number ({name}@{published[-1].version})",
        )
    return _chosen(capability, newest)


def newest_version(spec: CapabilitySpec) -> PublishedLens | None:
    """The published version with the highest number that is not archived."""
    return max((item for item in spec.versions or () if not item.archived), key=lambda it: it.version, default=None)


def draft(spec: CapabilitySpec) -> Lens:
    """What would be published next."""
    return Lens(
        instructions=spec.instructions, parameters=spec.parameters, inputs=spec.inputs, outputs=list(spec.outputs)
    )


def next_version(spec: CapabilitySpec) -> PublishedLens | None:
    """The draft as the version that would be published now; None when the newest says just that."""
    now, newest = draft(spec), newest_version(spec)
    if newest is not None and lens_digest(newest) == lens_digest(now):
        return None
    number = max((item.version for item in spec.versions or ()), default=0) + 1
    return PublishedLens.model_validate({**declared(now), "version": number})


def lens_digest(lens: Lens) -> str:
    """Digest of what a lens says; a number, an archive mark and the order of lists are no part of it."""
    said = declared(lens)
    by_name = {name: sorted(said[name], key=lambda item: str(item["name"])) for name in _LISTS if name in said}
    return digest_of_json({**said, **by_name})


def declared(lens: Lens) -> dict[str, Any]:
    """The lens as JSON: its four members, those that are there."""
    wire = lens.wire()
    return {name: wire[name] for name in ("instructions", "parameters", "inputs", "outputs") if wire.get(name)}


def _chosen(capability: Capability, lens: Lens) -> ChosenLens:
    metadata = capability.metadata
    version = lens.version if isinstance(lens, PublishedLens) else None
    owner = f"Capability {metadata.name}" + (f" (version {version})" if version is not None else "")
    generation = metadata.generation if version is None else None
    digest = lens_digest(lens)
    return ChosenLens(metadata.name, metadata.uid, generation, version, lens, digest, lens.instructions, owner)


def lens_problems(lens: Lens) -> tuple[Problem, ...]:
    """What is wrong with a lens whatever is set: ``(reason, message)`` each."""
    labels = lens.parameters or []
    names = [item.name for item in labels]
    undeclared = [name for name in named_in(lens.instructions or "") if name not in names]
    return (
        *declaration_problems(labels),
        *(
            ("ParameterUnknown", f"the instructions use [[{name}]], which is no parameter; {known(names)}")
            for name in undeclared
        ),
        *_twice([item.name for item in lens.inputs or ()], "input"),
        *_twice([item.name for item in lens.outputs], "output"),
        *_twice(names, "parameter"),
    )


def _twice(names: Sequence[str], what: str) -> Iterator[Problem]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "ParameterInvalid", f"{what} {name} is declared twice; keep one"


@dataclass(frozen=True, slots=True)
class SettledLenses:
    """The lenses with values put in, what is wrong, and the blobs that File parameters name."""

    lenses: tuple[ChosenLens, ...]
    problems: tuple[Problem, ...]
    files: tuple[tuple[str, str], ...] = ()
    """``(label, digest)``."""


def settle_lenses(
    lenses: Sequence[ChosenLens], given: Mapping[str, str], field: str = "spec.capabilityParameters"
) -> SettledLenses:
    """The values given, else each lens's own defaults, put into the instructions of every lens that declares them.

    What no lens declares, what none has a default for, and what is not of its type is a problem.
    """
    every = {item.name for chosen in lenses for item in chosen.lens.parameters or ()}
    problems: list[Problem] = [
        ("ParameterUnknown", f"no required Capability has a parameter {name}; {known(every)}")
        for name in sorted(given.keys() - every)
    ]
    settled: list[ChosenLens] = []
    files: dict[str, str] = {}
    for chosen in lenses:
        problems += [(reason, f"{chosen.owner}: {message}") for reason, message in lens_problems(chosen.lens)]
        values = {}
        for item in chosen.lens.parameters or ():
            value = given.get(item.name, item.default)
            if value is None:
                message = f"parameter {item.name} has no default: set it in {field}"
                problems.append(("ParameterMissing", f"{chosen.owner}: {message}"))
                continue
            values[item.name] = value
            wrong = mismatch(item, value) if item.name in given else None  # a default's own was found above
            if wrong is None and item.type is LabelType.FILE and files.setdefault(item.name, value) != value:
                wrong = f"has another default than another Capability's: set it in {field}"
            if wrong is not None:
                problems.append(("ParameterInvalid", f"{chosen.owner}: parameter {item.name} {wrong}"))
        settled.append(_with_values(chosen, values))
    return SettledLenses(tuple(settled), tuple(dict.fromkeys(problems)), tuple(sorted(files.items())))


def _with_values(chosen: ChosenLens, values: Mapping[str, str]) -> ChosenLens:
    text = chosen.lens.instructions
    return replace(chosen, instructions=None if text is None else put_into(text, values))


def capability_problems(spec: CapabilitySpec) -> tuple[tuple[str, str], ...]:
    """What no schema says about a Capability: ``(field, message)`` each."""
    found = [("spec", message) for _, message in lens_problems(spec)]
    numbers = [item.version for item in spec.versions or ()]
    for earlier, later in pairwise(numbers):
        if later <= earlier:
            found.append(
                (
                    f"spec.versions[{later}]",
                    f"version {later} comes after version {earlier}: numbers rise from one to the next, and none is "
                    "given twice",
                )
            )
    for item in spec.versions or ():
        found += [(f"spec.versions[{item.version}]", message) for _, message in lens_problems(item)]
    return tuple(found)
