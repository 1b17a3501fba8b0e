"""What the session of a placement would be if it were frozen now: its work order, snapshot and name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.agent import Agent
from triplane.api.authority import Grant
from triplane.api.graph import Graph
from triplane.api.harness import Harness
from triplane.api.meta import Material, Output, Subject
from triplane.api.task import Task
from triplane.api.tool import ToolSpec
from triplane.audit.digest import digest_of_json
from triplane.controllers.task_instructions import Instructions
from triplane.controllers.warrants import Warrants
from triplane.domain.guideline import PinnedGuideline
from triplane.domain.lens import ChosenLens
from triplane.domain.naming import fingerprint, object_name
from triplane.domain.snapshot import Pinned, freeze, snapshot_digest
from triplane.domain.task_facts import Placement
from triplane.domain.task_review import review_capability
from triplane.domain.tool import frozen_tool
from triplane.domain.warrant import Warrant, demanded, members_of_order
from triplane.domain.workorder import Assignment, ResolvedInput, model_of, producer_order, reviewer_order
from triplane.ports import ObjectIndex

Object = dict[str, Any]
MAX_NAME = 253


@dataclass(frozen=True)
class SessionPlan:
    """What the session of a placement would be, frozen now."""

    name: str
    order: Mapping[str, Any]
    snapshot: tuple[Material, ...]
    digest: str
    ancestors: tuple[Object, ...]
    inputs: tuple[tuple[str, str], ...]
    warrant: Warrant
    demands: Grant
    """What it needs to begin at all."""


@dataclass(frozen=True)
class SessionPlanner:
    """Freezes what the session of each placement would be, from the index as it stands."""

    task: Task
    obj: Object
    graph: Object
    node: Object | None
    instructions: Instructions
    inputs: tuple[ResolvedInput, ...]
    outputs: tuple[Output, ...]
    index: ObjectIndex
    warrants: Warrants
    dead: frozenset[str] = frozenset()
    """Names of sessions that were revoked, and are not taken up again."""

    def plan(
        self, placement: Placement, produced: Mapping[int, tuple[Subject, ...]], producer: Placement | None = None
    ) -> SessionPlan | None:
        """``producer`` is whose work the session of a reviewer judges."""
        agent_obj = self.index.by_uid(placement.agent_uid)
        if agent_obj is None or agent_obj["metadata"].get("deletionTimestamp"):
            return None
        agent = Agent.model_validate(agent_obj)
        namespace = agent.metadata.namespace
        harness_obj = self.index.get("Harness", namespace, agent.spec.harness_ref.name)
        if harness_obj is None:
            return None
        lenses = self.instructions.lenses(placement.role)
        selection = self.instructions.selection(placement, producer)
        if selection.problem is not None:
            return None
        guidelines = selection.guidelines
        told = self._objects([*(item.uid for item in lenses), *(item.uid for item in guidelines)])
        tool_objs = self._tool_objects(placement.role)
        assignment = Assignment(
            self.task,
            Graph.model_validate(self.graph),
            agent,
            Harness.model_validate(harness_obj),
            lenses=lenses,
            guidelines=guidelines,
            tools=tuple(frozen_tool(item) for item in tool_objs),
        )
        inputs = [(item.name, item.digest) for item in self.inputs]
        if placement.role == "producer":
            order = producer_order(assignment, self.inputs, self.outputs)
            key: tuple[str, ...] = ()
        else:
            subjects = {subject.name: subject for subject in produced.get(placement.round, ())}
            pairs = [(out, subjects[out.name]) for out in self.outputs if out.name in subjects]
            order = reviewer_order(assignment, self.inputs, pairs)
            inputs += [(f"outputs/{out.name}", subject.digest) for out, subject in pairs]
            key = (str(placement.round), str(placement.ordinal))
        held = self.warrants.of(self.graph, self.node, self.obj, agent_obj)
        order |= members_of_order(held, self.task.spec, placement.role)
        materials = freeze(
            [
                _pin("agent", agent_obj),
                _pin("harness", harness_obj),
                *(_pin_lens(item) for item in lenses),
                *(_pin_guideline(item) for item in guidelines),
                *(_pin("tool", item) for item in tool_objs),
                Pinned("authority", "effective", None, None, held.digest),
            ],
            model=model_of(assignment, placement.role),
            inputs=inputs,
            order=order,
        )
        digest = snapshot_digest(materials)
        part = "work" if placement.role == "producer" else f"review-{placement.round}"
        ancestors = [self.obj, self.graph, agent_obj, harness_obj, *told, *tool_objs]
        if self.node is not None:
            ancestors.append(self.node)
        return SessionPlan(
            name=self._name(part, (placement.agent_uid, placement.role, digest, *key)),
            order=order,
            snapshot=materials,
            digest=digest,
            ancestors=tuple(ancestors),
            inputs=tuple(inputs),
            warrant=held,
            demands=demanded(
                self.task.spec,
                role=placement.role,
                model=model_of(assignment, placement.role),
                harness=harness_obj["metadata"]["name"],
                review_capability=review_capability(self.task),
                tools=[ToolSpec.model_validate(item["spec"]) for item in tool_objs],
            ),
        )

    def _name(self, part: str, frozen: tuple[str, ...]) -> str:
        """The same for the same session; one that was revoked is followed by another, even if all is as it was."""
        again = 0
        while True:
            tail = (*frozen, f"again-{again}") if again else frozen
            name = object_name(self.task.metadata.name, part, fingerprint(self.task.metadata.uid, *tail))
            if name not in self.dead:
                return name
            again += 1

    def _tool_objects(self, role: str) -> list[Object]:
        """What a producer is offered; a reviewer judges what is there, with nothing but that."""
        names = self.task.spec.tools or () if role == "producer" else ()
        found = (self.index.get("Tool", self.task.metadata.namespace, name) for name in names)
        return [item for item in found if item is not None]

    def _objects(self, uids: Sequence[str]) -> list[Object]:
        found = (self.index.by_uid(uid) for uid in uids)
        return [item for item in found if item is not None]


def _pin(role: str, obj: Object) -> Pinned:
    metadata = obj["metadata"]
    return Pinned(role, metadata["name"], metadata["uid"], metadata.get("generation", 1), digest_of_json(obj["spec"]))


def _pin_lens(item: ChosenLens) -> Pinned:
    """A published version is the same whatever else of its Capability is edited."""
    return Pinned("capability", item.label, item.uid, item.generation, item.digest)


def _pin_guideline(item: PinnedGuideline) -> Pinned:
    """Of which namespace it is tells the UID, where the name leaves no room for it."""
    return Pinned("guideline", f"{item.namespace}/{item.name}"[:MAX_NAME], item.uid, item.generation, item.digest)
