"""Contracts of inputs: what a lens asks of the inputs a Task brings, as far as that is told without their contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triplane.api.meta import InputType
from triplane.api.task import Task
from triplane.domain.lens import ChosenLens, Problem
from triplane.domain.workorder import ResolvedInput

REASON: Final = "InputContractNotMet"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class ContentCheck:
    """What still has to be looked at: the content of one input against one contract."""

    input: str
    digest: str
    media_type: str
    schema: Mapping[str, Any] | None
    owner: str

    def unmet(self, problem: str) -> Problem:
        """The content breaks the contract, as ``problem`` says."""
        return REASON, f"input {self.input} is not what {self.owner} asks for: {problem}. {_REMEDY}"


@dataclass(frozen=True, slots=True)
class Unmet:
    """A contract is broken, whatever the content says."""

    reason: str
    message: str


_REMEDY: Final = "Make a new Task with another input, or require another version of the Capability"


def declared_gap(task: Task, lenses: Sequence[ChosenLens]) -> Problem | None:
    """The first input that a lens asks for and the Task can never bring, for it does not declare it so."""
    declared = {item.name: item for item in task.spec.inputs or ()}
    for chosen in lenses:
        for wanted in chosen.lens.inputs or ():
            item = declared.get(wanted.name)
            if item is None:
                has = ", ".join(sorted(declared)) or "none"
                return REASON, f"{chosen.owner} asks for input {wanted.name}; the Task has {has}. {_REMEDY}"
            if item.type is InputType.DIRECTORY and (wanted.media_type or wanted.json_schema):
                kind = wanted.media_type or JSON
                return REASON, f"{chosen.owner} asks for input {wanted.name} as {kind}; it is a Directory. {_REMEDY}"
    return None


def content_checks(
    lenses: Sequence[ChosenLens], inputs: Sequence[ResolvedInput], media_types: Mapping[str, str]
) -> "tuple[ContentCheck, ...] | Unmet":
    """What is to be checked of the inputs that are there. ``media_types``: of those that are one whole output of
    another Task, which has a media type of its own, and breaks the contract when that is another."""
    there = {item.name: item for item in inputs}
    checks = []
    for chosen in lenses:
        for wanted in chosen.lens.inputs or ():
            item = there.get(wanted.name)
            if item is None or (wanted.media_type is None and wanted.json_schema is None):
                continue
            media_type = wanted.media_type or JSON
            check = ContentCheck(item.name, item.digest, media_type, wanted.json_schema, chosen.owner)
            produced = media_types.get(item.name)
            if produced is not None and not _is_a(produced, media_type):
                return Unmet(*check.unmet(f"it was produced as {produced}, not as {media_type}"))
            checks.append(check)
    return tuple(checks)


def _is_a(produced: str, wanted: str) -> bool:
    """Whether one media type will do for another: the same, or JSON of a kind where JSON is asked for (RFC 6839)."""
    essence = produced.partition(";")[0].strip().lower()
    return essence == wanted.lower() or (wanted.lower() == JSON and essence.endswith("+json"))
