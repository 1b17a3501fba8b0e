"""Node reconciler: settles what is to be done, makes the Tasks of its steps, and sums them up."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triplane.api.meta import TERMINAL, State
from triplane.api.node import QueueMode
from triplane.api.text import API_VERSION, REQUESTER
from triplane.audit.model import SYSTEM_STREAM, EventBody
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.node_gather import NodeGatherer, over
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.pace import Pace
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding, rfc3339
from triplane.domain.events import graph_stream
from triplane.domain.naming import object_name
from triplane.domain.node import Abort, Action, MakeTasks, NodeFacts, Replace, Settle, decide, rows, without_plan
from triplane.domain.node_log import node_aborted, node_planned
from triplane.domain.node_plan import NodePlan, PlannedStep
from triplane.domain.node_status import NodeOutlook, blocked
from triplane.domain.node_steps import StepFacts
from triplane.errors import BlobMissing, Corrupt, Forbidden, IdReused, InvalidInput, TooLarge

Object = dict[str, Any]

MAX_ACTIONS = 8
"""Actions in one go; a Node needs four at most before it makes Tasks."""
TOGETHER = 8
"""Tasks made at the same time."""
STEPS_A_SECOND = 64
"""A roll-up of more steps than this waits longer than a second after the last: its status is large."""
SLOWEST_SECONDS = 3.0
REFUSED_SECONDS = 15.0
"""How often a Task that the API server refuses is tried again: a quota may have been raised."""


class NodeReconciler:
    """One Task per step, made once per incarnation of the Node."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        self._gatherer = NodeGatherer(context)
        self._pace = Pace(context.clock)
        self._queueing = asyncio.Lock()
        """Held while a Node of a queue looks who is before it and begins: two must not pass each other."""

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        await self._observer.observe(obj, stream=self._stream(obj))
        if over(obj):
            return await self._keep(obj)
        if (left := self._left(obj)) > 0:
            return left
        uid = obj["metadata"]["uid"]
        try:
            if obj["spec"].get("queue") is not None and (await self._gatherer.settled(uid)).plan is None:
                async with self._queueing:
                    return await self._advance(obj)
            return await self._advance(obj)
        except (BlobMissing, Corrupt) as error:
            return await self._without_plan(obj, f"What it runs was settled, but cannot be read any more: {error}")

    def forget(self, uid: str) -> None:
        """The Node is gone."""
        self._gatherer.forget(uid)
        self._pace.forget(uid)

    async def _advance(self, obj: Object) -> float | None:
        made = 0
        for _ in range(MAX_ACTIONS):
            facts = await self._gatherer.gather(obj)
            step = decide(facts)
            if isinstance(step, NodeOutlook):
                self._wake(obj, facts)
                return await self._tell(obj, facts.plan, step)
            if isinstance(step, MakeTasks) and made:
                return 0.0  # other keys get their turn between batches
            refused = await self._apply(obj, facts, step)
            if refused is not None:
                assert facts.plan is not None
                await self._tell(obj, facts.plan, replace(refused, steps=rows(facts.plan, facts.steps or {})))
                return REFUSED_SECONDS
            made += isinstance(step, MakeTasks)
        return 0.0

    async def _without_plan(self, obj: Object, why: str) -> float | None:
        facts = await self._gatherer.without_plan(obj)
        tasks = self._context.index.children("Task", "owner", obj["metadata"]["uid"])
        stand = [
            StepFacts.of(task["spec"].get("step") or "", task["metadata"]["name"], task.get("status")) for task in tasks
        ]
        step = without_plan(facts, sorted(stand, key=lambda item: item.name), why)
        if isinstance(step, NodeOutlook):
            self._wake(obj, facts)
            return await self._tell(obj, None, step)
        await self._apply(obj, facts, step)
        return 0.0

    async def _apply(self, obj: Object, facts: NodeFacts, step: Action) -> NodeOutlook | None:
        match step:
            case Settle(plan):
                await self._settle(obj, plan)
            case Replace(nodes):
                await self._replace(obj, nodes)
            case Abort(name):
                await self._cut_short(obj, node_aborted(subject_of(obj), self._stream(obj), "FailFast", step=name))
            case MakeTasks(steps):
                return await self._make(obj, steps)
        return None

    async def _settle(self, obj: Object, plan: NodePlan) -> None:
        digest = await self._context.store_json(plan.document())
        subject, stream = subject_of(obj), self._stream(obj)
        await self._append(obj, node_planned(subject, stream, digest, len(plan.steps), workflow=plan.workflow))
        (await self._gatherer.settled(subject.uid)).owned = True  # it has no Tasks yet

    async def _replace(self, obj: Object, nodes: Sequence[str]) -> None:
        for name in nodes:
            other = self._context.index.get("Node", obj["metadata"]["namespace"], name)
            if other is not None:
                uid, stream = obj["metadata"]["uid"], self._stream(other)
                await self._cut_short(other, node_aborted(subject_of(other), stream, "Replaced", node_uid=uid))

    async def _cut_short(self, obj: Object, body: EventBody) -> None:
        """Log that the Node is aborted, and wake it and its Tasks: each ends by itself when it reads that."""
        await self._append(obj, body)
        self._context.enqueue(Key.of(obj), 0.0)
        self._wake_tasks(obj["metadata"]["uid"])

    def _wake(self, obj: Object, facts: NodeFacts) -> None:
        """Whoever must hear of an abort, again: the entry may stand though its append was answered with an error, and
        then nobody was told."""
        namespace, uid = obj["metadata"]["namespace"], obj["metadata"]["uid"]
        if facts.plan is None and facts.mode is QueueMode.REPLACE:
            for name in facts.ahead:
                self._context.enqueue(Key("Node", namespace, name), 0.0)
        if facts.aborted is not None and self._gatherer.first_word_of_abort(uid):
            self._wake_tasks(uid)

    def _wake_tasks(self, uid: str) -> None:
        for task in self._context.index.children("Task", "owner", uid):
            if State((task.get("status") or {}).get("state") or State.PENDING) not in TERMINAL:
                self._context.enqueue(Key.of(task), 0.0)

    async def _append(self, obj: Object, body: EventBody) -> None:
        """What was recorded first stands: it is read again, and applied."""
        try:
            if await self._context.log.get(body.id) is None:
                await self._context.log.append([body])
        except IdReused:
            pass
        finally:
            self._gatherer.forget(obj["metadata"]["uid"])

    async def _make(self, obj: Object, steps: Sequence[PlannedStep]) -> NodeOutlook | None:
        """Make these Tasks; what to say when the API server refuses one."""
        for start in range(0, len(steps), TOGETHER):
            answers = await asyncio.gather(
                *(self._context.cluster.create(task_of(obj, step)) for step in steps[start : start + TOGETHER]),
                return_exceptions=True,
            )
            failures = []
            for answer in answers:
                if isinstance(answer, BaseException):
                    failures.append(answer)
                else:
                    self._context.index.put(answer[0])
            for failure in failures:
                if not isinstance(failure, InvalidInput | Forbidden | TooLarge):
                    raise failure
            if failures:
                return blocked("TaskRefused", f"The API server refuses a Task of it: {failures[0]}"[:1024])
        return None

    async def _keep(self, obj: Object) -> float | None:
        """It is over: nothing about it changes any more but the generation that its status speaks of."""
        self.forget(obj["metadata"]["uid"])
        told = obj["status"]
        fields = {key: told[key] for key in told if key not in ("conditions", "observedGeneration", "requestedAt")}
        findings = [
            Finding(item["type"], item["status"], item["reason"], item["message"]) for item in told["conditions"]
        ]
        return await self._status.write(obj, fields, findings)

    async def _tell(self, obj: Object, plan: NodePlan | None, outlook: NodeOutlook) -> float | None:
        uid, before = obj["metadata"]["uid"], obj.get("status") or {}
        fields = outlook.fields()
        if outlook.over and not fields["completedAt"]:
            fields["completedAt"] = before.get("completedAt") or rfc3339(self._context.clock.now())
        fields["workflowGeneration"] = plan.workflow[1] if plan is not None and plan.workflow is not None else None
        # Its Tasks were just made: unless they have to wait, the first of them is at work within a second.
        passing = outlook.state in (State.PENDING, State.QUEUED) and bool(outlook.steps)
        first = not before.get("observedGeneration")
        again = await self._status.write(obj, fields, outlook.findings, transient=passing and first)
        if outlook.over:
            self.forget(uid)
        else:
            self._pace.note(uid)
        return again

    def _left(self, obj: Mapping[str, Any]) -> float:
        """Seconds until the next roll-up. A large one waits longer, but never with the last."""
        steps = (obj.get("status") or {}).get("steps") or ()
        seconds = 1.0
        if len(steps) > STEPS_A_SECOND and not self._done(obj, steps):
            seconds = min(SLOWEST_SECONDS, len(steps) / STEPS_A_SECOND)
        return self._pace.left(obj["metadata"]["uid"], seconds)

    def _done(self, obj: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
        tasks = (self._context.index.get("Task", obj["metadata"]["namespace"], step["task"]) for step in steps)
        states = (((task or {}).get("status") or {}).get("state") or State.PENDING for task in tasks)
        return all(State(state) in TERMINAL for state in states)

    def _stream(self, obj: Mapping[str, Any]) -> str:
        graph = self._context.index.get("Graph", obj["metadata"]["namespace"], obj["spec"]["graphRef"]["name"])
        return SYSTEM_STREAM if graph is None else graph_stream(graph["metadata"]["uid"])


def task_of(node: Mapping[str, Any], step: PlannedStep) -> Object:
    """The Task of a step, as it is sent to the API server."""
    metadata, spec = node["metadata"], node["spec"]
    made = {**step.spec, "graphRef": dict(spec["graphRef"]), "nodeRef": {"name": metadata["name"]}}
    if requester := (metadata.get("annotations") or {}).get(REQUESTER):
        made["onBehalfOf"] = requester
    return {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {
            "name": step.task,
            "namespace": metadata["namespace"],
            "labels": {
                "app.kubernetes.io/managed-by": "triplane",
                "triplane.dev/graph": object_name(spec["graphRef"]["name"]),
                "triplane.dev/node": object_name(metadata["name"]),
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "Node",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": made,
    }
