"""Reads what a Node's decision needs. What is settled for good is read once per process: its plan, and whether it was
cut short. The rest is the index: a roll-up asks no store anything, however many steps there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from triplane.api.meta import State
from triplane.api.node import FailureMode, Node, QueueMode
from triplane.api.workflow import Workflow
from triplane.audit.model import EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.controllers.owned import owned_by
from triplane.domain.conditions import condition
from triplane.domain.node import Aborted, NodeFacts
from triplane.domain.node_log import aborted_id, planned_id
from triplane.domain.node_plan import NodePlan, make_plan, read_plan
from triplane.domain.node_steps import StepFacts
from triplane.domain.task_outlook import CANCELLING_REASONS, INVALIDATING_REASONS, TIMED_OUT_REASONS

Object = dict[str, Any]

_ENDS = frozenset({"task.accepted", "task.failed", "task.skipped"})


@dataclass
class Settled:
    """What the log holds of one Node; kept in memory, because it only grows and we alone write it."""

    digest: str | None = None
    """Of the plan; None: nothing was settled, the Node has not begun."""
    plan: NodePlan | None = None
    """Read when it is the Node's own turn."""
    stream: str | None = None
    """Of the Graph under which it began."""
    aborted: Aborted | None = None
    told: bool = False
    """Whether its Tasks were woken since ``aborted`` was read."""
    tasks: dict[str, str] = field(default_factory=dict)
    """Name to UID of the Node's Tasks, also of those that are gone."""
    owned: bool = False
    """Whether those of before this process were read."""
    ended: dict[str, State] = field(default_factory=dict)
    """Name of a deleted Task to the state it ended in."""


def over(obj: Mapping[str, Any]) -> bool:
    """Whether the Node was decided for good."""
    told = condition(obj.get("status"), "Succeeded")
    return told is not None and told["status"] != "Unknown"


class NodeGatherer:
    """One gatherer serves all Nodes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settled: dict[str, Settled] = {}
        self._forgotten = 0
        """How often anything was forgotten."""

    def forget(self, uid: str) -> None:
        """The Node is gone or over, or what is known of it is in doubt."""
        self._settled.pop(uid, None)
        self._forgotten += 1

    def first_word_of_abort(self, uid: str) -> bool:
        """True once after each time that the abort was read from the log."""
        found = self._settled.get(uid)
        first = found is not None and not found.told
        if found is not None:
            found.told = True
        return first

    async def settled(self, uid: str) -> Settled:
        """What the log holds of the Node, and its plan; a round trip or two, once."""
        found = (await self._load([uid]))[uid]
        if found.plan is None and found.digest is not None:
            document = await self._context.load_json(found.digest)
            assert isinstance(document, dict)
            found.plan = read_plan(document)
        return found

    async def _load(self, uids: Sequence[str]) -> Mapping[str, Settled]:
        """Without plans: those of others are not our concern, and one that is lost must not stop this Node."""
        while unknown := [uid for uid in uids if uid not in self._settled]:
            forgotten = self._forgotten
            ids = [make(uid) for uid in unknown for make in (planned_id, aborted_id)]
            recorded = await self._context.log.get_many(ids)
            if forgotten != self._forgotten:
                continue  # another worker has logged something meanwhile, perhaps of one of these
            for uid in unknown:
                self._settled[uid] = _read(recorded.get(planned_id(uid)), recorded.get(aborted_id(uid)))
        return {uid: self._settled[uid] for uid in uids}

    async def gather(self, obj: Object) -> NodeFacts:
        """Everything at once; raises ``Unavailable`` when a store cannot be read, ``BlobMissing`` or ``Corrupt`` when
        the plan is lost."""
        known = await self.settled(obj["metadata"]["uid"])
        facts = self._facts(obj, known)
        return await self._under_way(obj, facts, known) if known.plan else await self._before(obj, facts)

    async def without_plan(self, obj: Object) -> NodeFacts:
        """What there is to know of a Node whose plan is lost."""
        uid = obj["metadata"]["uid"]
        return self._facts(obj, (await self._load([uid]))[uid])

    def _facts(self, obj: Object, known: Settled) -> NodeFacts:
        index, namespace = self._context.index, obj["metadata"]["namespace"]
        spec = obj["spec"]
        name = spec["graphRef"]["name"]
        graph = index.get("Graph", namespace, name)
        there = graph is not None and not graph["metadata"].get("deletionTimestamp")
        if graph is not None and known.stream is not None:
            there = there and known.stream == f"graph/{graph['metadata']['uid']}"
        return NodeFacts(
            graph=name,
            graph_there=there,
            plan=known.plan,
            proposed=None,
            workflow=(spec.get("workflowRef") or {}).get("name"),
            suspended=_suspended(obj, graph),
            cancel=bool(spec.get("cancel")),
            failure_mode=FailureMode(spec.get("failureMode") or FailureMode.ISOLATE),
            mode=_mode(obj),
            aborted=known.aborted,
        )

    async def _before(self, obj: Object, facts: NodeFacts) -> NodeFacts:
        """With what decides whether the Node may begin."""
        if facts.cancel or facts.aborted or not facts.graph_there:
            return facts
        workflow = None
        if facts.workflow is not None:
            found = self._context.index.get("Workflow", obj["metadata"]["namespace"], facts.workflow)
            if found is None or found["metadata"].get("deletionTimestamp"):
                return facts
            workflow = Workflow.model_validate(found)
        ahead = await self._ahead(obj)
        return replace(
            facts,
            proposed=make_plan(Node.model_validate(obj), workflow),
            ahead=tuple(item["metadata"]["name"] for item in ahead),
            ahead_running=tuple(item["metadata"]["name"] for item in ahead if not self._cut_short(item)),
        )

    def _cut_short(self, obj: Object) -> bool:
        return bool(obj["spec"].get("cancel")) or self._settled[obj["metadata"]["uid"]].aborted is not None

    async def _ahead(self, obj: Object) -> list[Object]:
        """The unfinished Nodes before it in its queue: made earlier, or in the same second and begun, or first by
        name."""
        peers = [item for item in self.queue_of(obj) if item["metadata"]["uid"] != obj["metadata"]["uid"]]
        born = _born(obj)
        earlier = [item for item in peers if not over(item) and _born(item) <= born]
        await self._load([item["metadata"]["uid"] for item in earlier])
        before = [item for item in earlier if _born(item) < born or self._first(item, obj)]
        return sorted(before, key=lambda item: (_born(item), item["metadata"]["name"]))

    def _first(self, other: Object, obj: Object) -> bool:
        begun = self._settled[other["metadata"]["uid"]].digest is not None
        return begun or other["metadata"]["name"] < obj["metadata"]["name"]

    def queue_of(self, obj: Object) -> Sequence[Object]:
        """The Nodes of the queue this one is in, itself included; none when it is in none."""
        queue = obj["spec"].get("queue")
        if queue is None:
            return ()
        return self._context.index.children("Node", "queue", queue_key(obj))

    async def _under_way(self, obj: Object, facts: NodeFacts, known: Settled) -> NodeFacts:
        """With how the Tasks stand."""
        assert known.plan is not None
        index, metadata = self._context.index, obj["metadata"]
        steps: dict[str, StepFacts] = {}
        others, absent = [], []
        for step in known.plan.steps:
            task = index.get("Task", metadata["namespace"], step.task)
            if task is None:
                absent.append(step)
            elif any(ref["uid"] == metadata["uid"] for ref in task["metadata"].get("ownerReferences") or ()):
                known.tasks[step.task] = task["metadata"]["uid"]
                steps[step.name] = StepFacts.of(step.name, step.task, task.get("status"))
            else:
                others.append((step, task))
        taken = []
        if others:  # an owner reference that somebody took away makes nobody else's Task of it
            await self._owned(metadata["uid"], known)
        for step, task in others:
            if known.tasks.get(step.task) == task["metadata"]["uid"]:
                steps[step.name] = StepFacts.of(step.name, step.task, task.get("status"))
            else:
                taken.append(step.task)
        if absent:
            ended = await self._ended(metadata["uid"], known)
            for step in absent:
                if step.task in ended:
                    steps[step.name] = StepFacts.deleted(step.name, step.task, state=ended[step.task])
        return replace(facts, steps=steps, taken=tuple(taken))

    async def _owned(self, uid: str, known: Settled) -> None:
        """Add the Tasks that the Node made before this process began."""
        if not known.owned:
            for name, record in (await owned_by(self._context.graph, uid, "Task")).items():
                known.tasks.setdefault(name, record.uid)
            known.owned = True

    async def _ended(self, uid: str, known: Settled) -> Mapping[str, State]:
        """The Tasks of this Node that ended and were deleted since: what was done is not done again. Three round trips
        at most, and none while no Task of it has gone."""
        context = self._context
        await self._owned(uid, known)
        gone = {
            task_uid: name
            for name, task_uid in known.tasks.items()
            if name not in known.ended and context.index.by_uid(task_uid) is None
        }
        if gone:
            for entry in await context.log.query(EventFilter(uids=frozenset(gone), types=_ENDS)):
                known.ended[gone[entry.entry["subject"]["uid"]]] = _ended_in(entry)
        return known.ended


def _read(planned: Recorded | None, aborted: Recorded | None) -> Settled:
    found = Settled()
    if planned is not None:
        found.digest, found.stream = planned.entry["data"]["planDigest"], planned.entry["stream"]
    if aborted is not None:
        found.aborted = Aborted(aborted.entry["data"]["reason"], aborted.entry["data"].get("step"))
    return found


def queue_key(obj: Mapping[str, Any]) -> str:
    """``<ns>/<graph>/<queue>``: the value of the index's field ``queue``."""
    spec = obj["spec"]
    return f"{obj['metadata'].get('namespace', '')}/{spec['graphRef']['name']}/{spec['queue']['name']}"


def _ended_in(recorded: Recorded) -> State:
    entry = recorded.entry
    if entry["type"] == "task.accepted":
        return State.COMPLETED
    if entry["type"] == "task.skipped":
        return State.SKIPPED
    reason = entry["data"]["reason"]
    if reason in CANCELLING_REASONS:
        return State.CANCELLED
    if reason in INVALIDATING_REASONS:
        return State.INVALIDATED
    return State.TIMED_OUT if reason in TIMED_OUT_REASONS else State.FAILED


def _born(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


def _mode(obj: Mapping[str, Any]) -> QueueMode | None:
    queue = obj["spec"].get("queue")
    return None if queue is None else QueueMode(queue.get("mode") or QueueMode.SERIAL)


def _suspended(obj: Mapping[str, Any], graph: Mapping[str, Any] | None) -> str | None:
    if obj["spec"].get("suspend"):
        return "spec.suspend of the Node"
    if graph is not None and graph["spec"].get("suspend"):
        return f"spec.suspend of Graph {graph['metadata']['name']}"
    return None
