"""What the session of a placement would be if it were frozen now: its work order, snapshot and name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triplane.api.agent import Agent
from triplane.api.capability import Capability
from triplane.api.graph import Graph
from triplane.api.harness import Harness
from triplane.api.meta import Material, Output, Subject
from triplane.api.task import Task
from triplane.domain.naming import fingerprint, object_name
from triplane.domain.snapshot import Pinned, freeze, snapshot_digest
from triplane.domain.task import review_capability
from triplane.domain.task_facts import Placement
from triplane.domain.workorder import Assignment, ResolvedInput, model_of, producer_order, reviewer_order
from triplane.ports import ObjectIndex

Object = dict[str, Any]


@dataclass(frozen=True)
class SessionPlan:
    """What the session of a placement would be, frozen now."""

    name: str
    order: Mapping[str, Any]
    snapshot: tuple[Material, ...]
    digest: str
    ancestors: tuple[Object, ...]
    inputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SessionPlanner:
    """Freezes what the session of each placement would be, from the index as it stands."""

    task: Task
    obj: Object
    graph: Object
    node: Object | None
    capabilities: tuple[Capability, ...]
    inputs: tuple[ResolvedInput, ...]
    outputs: tuple[Output, ...]
    index: ObjectIndex

    def plan(self, placement: Placement, produced: Mapping[int, tuple[Subject, ...]]) -> SessionPlan | None:
        agent_obj = self.index.by_uid(placement.agent_uid)
        if agent_obj is None or agent_obj["metadata"].get("deletionTimestamp"):
            return None
        agent = Agent.model_validate(agent_obj)
        namespace = agent.metadata.namespace
        harness_obj = self.index.get("Harness", namespace, agent.spec.harness_ref.name)
        if harness_obj is None:
            return None
        capability_objs = self._capability_objects(placement.role)
        assignment = Assignment(
            self.task,
            Graph.model_validate(self.graph),
            agent,
            Harness.model_validate(harness_obj),
            tuple(Capability.model_validate(item) for item in capability_objs),
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
        materials = freeze(
            [
                _pin("agent", agent_obj),
                _pin("harness", harness_obj),
                *(_pin("capability", item) for item in capability_objs),
            ],
            model=model_of(assignment, placement.role),
            inputs=inputs,
            order=order,
        )
        digest = snapshot_digest(materials)
        suffix = fingerprint(self.task.metadata.uid, placement.agent_uid, placement.role, digest, *key)
        part = "work" if placement.role == "producer" else f"review-{placement.round}"
        ancestors = [self.obj, self.graph, agent_obj, harness_obj, *capability_objs]
        if self.node is not None:
            ancestors.append(self.node)
        return SessionPlan(
            name=object_name(self.task.metadata.name, part, suffix),
            order=order,
            snapshot=materials,
            digest=digest,
            ancestors=tuple(ancestors),
            inputs=tuple(inputs),
        )

    def _capability_objects(self, role: str) -> list[Object]:
        namespace = self.task.metadata.namespace
        if role == "producer":
            names = [item.metadata.name for item in self.capabilities]
        else:
            names = [review_capability(self.task)]
        found = (self.index.get("Capability", namespace, name) for name in names)
        return [item for item in found if item is not None]


def _pin(role: str, obj: Object) -> Pinned:
    metadata = obj["metadata"]
    return Pinned(role, metadata["name"], metadata["uid"], metadata.get("generation", 1), obj["spec"])
