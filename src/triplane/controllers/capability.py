"""Capability reconciler: whether its lens can be used, and which version Tasks get."""

from collections.abc import Mapping
from typing import Any

from triplane.api.capability import Capability
from triplane.controllers.ready import USABLE, Judgement, ReadyReconciler
from triplane.domain.conditions import Finding
from triplane.domain.lens import ChosenLens, choose, lens_problems, newest_version


class CapabilityReconciler(ReadyReconciler):
    """Sets ``version`` too."""

    async def _judge(self, obj: Mapping[str, Any]) -> Judgement:
        capability = Capability.model_validate(obj)
        newest = newest_version(capability.spec)
        return {} if newest is None else {"version": newest.version}, [_ready(capability)]


def _ready(capability: Capability) -> Finding:
    """Of what Tasks get that name no version. Admission refuses most of what can be wrong; this came another way."""
    chosen = choose(capability, None)
    if not isinstance(chosen, ChosenLens):
        return Finding("Ready", "False", *chosen)
    problems = lens_problems(chosen.lens)
    if not problems:
        return USABLE
    return Finding("Ready", "False", problems[0][0], "; ".join(message for _, message in problems)[:1024])
