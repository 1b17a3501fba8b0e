"""What the sessions of a Task are told beside the Task itself: lenses of Capabilities, and Guidelines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from triplane.api.capability import Capability
from triplane.api.guideline import Guideline
from triplane.api.task import Task
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.controllers.context import Context
from triplane.controllers.observe import Observer
from triplane.domain.guideline import Known, Recipient, Selection, select
from triplane.domain.lens import (
    OF_FILES,
    CapabilityUse,
    ChosenLens,
    Problem,
    SettledLenses,
    bare_names,
    choose,
    settle_lenses,
)
from triplane.domain.task_facts import Placement
from triplane.domain.task_review import review_capability

Told = TypeVar("Told", Capability, Guideline)
KEPT: Final = 4096
"""Capabilities and Guidelines that are kept parsed."""


@dataclass(frozen=True)
class Instructions:
    """Lenses with their values, by role, and the Guidelines there are."""

    task: Task
    producer: SettledLenses
    reviewer: SettledLenses
    guidelines: tuple[Known, ...] = ()
    problem: Problem | None = None
    """Why nobody can begin the work."""
    review_problem: Problem | None = None
    """Why nobody can be told how to review."""

    def lenses(self, role: str) -> tuple[ChosenLens, ...]:
        """What a session of this role exercises."""
        return self.producer.lenses if role == "producer" else self.reviewer.lenses

    def capabilities(self, role: str) -> tuple[str, ...]:
        """The same by name, whether or not there is such a Capability."""
        if role == "producer":
            return bare_names(self.task.spec.required_capabilities)
        return (review_capability(self.task),)

    def selection(self, placement: Placement, producer: Placement | None) -> Selection:
        """The Guidelines of the session of a placement; ``producer`` is whose work a reviewer judges."""
        recipient = Recipient(
            namespace=self.task.metadata.namespace,
            graph=self.task.spec.graph_ref.name,
            agent=placement.agent_name,
            capabilities=self.capabilities(placement.role),
            labels=self.task.metadata.labels,
        )
        if placement.role == "producer" or producer is None:
            return select(self.guidelines, recipient)
        sides = (producer.principal, producer.harness_principal)
        return select(self.guidelines, recipient, distrusted=[side for side in sides if side is not None])

    def review_unmet(self, panel: Sequence[Placement], producer: Placement | None) -> Problem | None:
        """Why nobody can be told how to review, or one of the panel would be told too much."""
        if self.review_problem is not None:
            return self.review_problem
        return next(filter(None, (self.selection(item, producer).problem for item in panel)), None)


class InstructionsReader:
    """Reads by the index. ``missing`` lists collect ``(reason, message)``."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer
        self._kept: dict[str, tuple[str, Capability | Guideline]] = {}

    async def read(self, task: Task, missing: list[Problem]) -> Instructions:
        """Everything at once."""
        lenses = self._lenses(task, missing)
        settled = settle_lenses(lenses, task.spec.capability_parameters or {})
        review = self._review(task)
        problem = _twice(task) or next(iter(settled.problems), None) or _reserved(task, settled)
        return Instructions(
            task=task,
            producer=settled,
            reviewer=review if isinstance(review, SettledLenses) else SettledLenses((), ()),
            guidelines=await self._guidelines(task.metadata.namespace),
            problem=problem,
            review_problem=next(iter(review.problems), None) if isinstance(review, SettledLenses) else review,
        )

    def _lenses(self, task: Task, missing: list[Problem]) -> list[ChosenLens]:
        found = []
        for use in map(CapabilityUse.parse, task.spec.required_capabilities or ()):
            obj = self._context.index.get("Capability", task.metadata.namespace, use.name)
            if obj is None:
                missing.append(("CapabilityNotFound", f"Capability {use.name} does not exist; apply it"))
                continue
            chosen = choose(self._parsed(Capability, obj), use.version)
            if isinstance(chosen, ChosenLens):
                found.append(chosen)
            else:
                missing.append(chosen)
        return found

    def _review(self, task: Task) -> SettledLenses | Problem:
        """The reviewer's lens by its defaults alone: the Task's author does not put words into it."""
        obj = self._context.index.get("Capability", task.metadata.namespace, review_capability(task))
        if obj is None:
            return SettledLenses((), ())
        chosen = choose(self._parsed(Capability, obj), None)
        if not isinstance(chosen, ChosenLens):
            return chosen
        return settle_lenses([chosen], {}, field="the Capability, for a reviewer gets the defaults")

    async def _guidelines(self, namespace: str) -> tuple[Known, ...]:
        index = self._context.index
        objs = [obj for place in {namespace, SYSTEM_NAMESPACE} for obj in index.list("Guideline", place)]
        return tuple([Known(self._parsed(Guideline, obj), await self._observer.controller_of(obj)) for obj in objs])

    def _parsed(self, model: type[Told], obj: Mapping[str, Any]) -> Told:
        """Made once per version of the object: every Task of the namespace asks at every look."""
        uid, version = obj["metadata"]["uid"], obj["metadata"].get("resourceVersion", "")
        kept = self._kept.get(uid)
        if kept is not None and kept[0] == version and isinstance(kept[1], model):
            return kept[1]
        parsed = model.model_validate(obj)
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[uid] = (version, parsed)
        return parsed


def _twice(task: Task) -> Problem | None:
    required = task.spec.required_capabilities or ()
    names = [CapabilityUse.parse(item).name for item in required]
    twice: Sequence[str] = sorted({name for name in names if names.count(name) > 1})
    if not twice:
        return None
    message = f"Capability {twice[0]} is required twice ({', '.join(required)}): make a new Task that names one version"
    return "ContractConflict", message


def _reserved(task: Task, settled: SettledLenses) -> Problem | None:
    if not settled.files or all(item.name != OF_FILES for item in task.spec.inputs or ()):
        return None
    where = f"an input is named {OF_FILES}, where the blobs of File parameters are put"
    return "ContractConflict", f"{where}: make a new Task that renames it"
