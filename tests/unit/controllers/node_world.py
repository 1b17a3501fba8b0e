"""Node and Workflow reconcilers over memory stores, a pretended API server and a clock that is set forward.

Tasks are played: a test says how each stands. Whom a change concerns is asked of the operator's own table.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulation.conditions import InlineExpressions, inline_policies
from tests.simulation.contents import InlineContracts
from tests.unit.controllers.memory_world import NAMESPACE, Fuse, Server

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.memory.signingkeys import MemorySigningKeys
from triplane.audit.digest import digest_of_json
from triplane.audit.model import EventBody, EventFilter
from triplane.controllers.context import Context
from triplane.controllers.expiry import Expiry
from triplane.controllers.key import Key
from triplane.controllers.node import NodeReconciler
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.projection import ProjectedLog
from triplane.controllers.signing import OperatorKeys
from triplane.controllers.status import StatusWriter
from triplane.controllers.workflow import WorkflowReconciler
from triplane.domain.conditions import rfc3339
from triplane.errors import TriplaneError
from triplane.operator.dependents import concerned
from triplane.operator.index import Change, Index

STEP = {"objective": "Do it", "agentRef": {"name": "a"}}
ENDS = {"completed": "task.accepted", "skipped": "task.skipped"}


class HandClock:
    """Time goes by when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class NodeWorld:
    """What outlives the operator, and an operator that may be begun again."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.server = Server()
        self.log = MemoryEventLog()
        self.graph = MemoryGraphStore()
        self.content = MemoryContentStore()
        self.fuse = Fuse()
        self.due: dict[Key, float] = {}
        self.reconciled: list[Key] = []
        self.start()

    def start(self) -> None:
        """A new operator process: nothing but the stores is left of the old one."""
        guard = self.fuse.guard
        self.due.clear()
        self.index = Index(self._changed)
        log = ProjectedLog(guard(self.log), self.graph)
        self.context = Context(
            guard(self.server), self.index, log, MemorySessionStore(self.clock), self.graph, guard(self.content),
            self._principal, self.clock, self.enqueue, InlineExpressions(), inline_policies(),
            InlineContracts(self.content), OperatorKeys(MemorySigningKeys(), log),
        )  # fmt: skip
        self.observer, status = Observer(self.context), StatusWriter(self.context)
        self.nodes = NodeReconciler(self.context, self.observer, status)
        self.by_kind = {
            "Node": self.nodes.reconcile,
            "Workflow": WorkflowReconciler(self.context, self.observer, status).reconcile,
        }
        self.expiry = Expiry(self.context)
        self.look()

    def look(self) -> None:
        """What a LIST shows."""
        for obj in list(self.server.objects.values()):
            self.index.observe(obj)
            self.enqueue(Key.of(obj), 0.0)

    def enqueue(self, key: Key, delay: float) -> None:
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.seconds + delay)

    def _changed(self, change: Change) -> None:
        for key in concerned(self.index, change):
            self.enqueue(key, 0.0)

    async def run(self, seconds: float = 0.0) -> None:
        """Reconcile what is due within so many seconds, setting the clock forward in between."""
        end = self.clock.seconds + seconds
        failures = 0
        while due := [key for key, at in self.due.items() if at <= end]:
            key = min(due, key=lambda item: (self.due[item], item))
            self.clock.seconds = max(self.clock.seconds, self.due.pop(key))
            try:
                again = await self._reconcile(key)
            except TriplaneError:
                failures += 1
                assert failures < 20, key
                again = 0.05
            if again is not None:
                self.enqueue(key, max(again, 0.001))
        self.clock.seconds = end

    async def _reconcile(self, key: Key) -> float | None:
        reconcile = self.by_kind.get(key.kind)
        if reconcile is None:
            if key.kind == "Task" and (task := self.index.get(*_address(key))) is not None:
                await self.observer.observe(task)
            return None
        self.reconciled.append(key)
        again = await reconcile(key)
        return again if again is not None or key.kind != "Node" else await self.expiry.expire(key)

    def apply(self, kind: str, name: str, **spec: Any) -> dict[str, Any]:
        """What a user applies, now."""
        obj = self.server.put(kind, name, spec, "alice")
        obj["metadata"]["creationTimestamp"] = rfc3339(self.clock.now())
        self.index.observe(obj)
        return obj

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        self.server.edit(kind, name, **spec)
        self.index.observe(self.server.objects[kind, NAMESPACE, name])

    def remove(self, kind: str, name: str) -> None:
        """Somebody deletes it; the watch tells."""
        self.index.remove(self.server.objects.pop((kind, NAMESPACE, name)))

    def node(self, name: str = "n") -> dict[str, Any]:
        return self.server.objects["Node", NAMESPACE, name]

    def task(self, name: str) -> dict[str, Any]:
        return self.server.objects["Task", NAMESPACE, name]

    def tasks(self) -> list[str]:
        return [obj["metadata"]["name"] for obj in self.server.of("Task")]

    async def stand(self, name: str, state: str, reason: str = "Reason", **fields: Any) -> None:
        """A Task's status as its own reconciler would write it; its end is in the log first."""
        obj = self.task(name)
        ended = {"completed": "True", "skipped": "True", "failed": "False", "invalidated": "False"}.get(state)
        ended = "False" if state == "cancelled" else ended
        if ended is not None:
            await self.observer.observe(obj)
            await self.log.append([_end_of(obj, ENDS.get(state, "task.failed"), reason)])
        condition = {
            "type": "Succeeded", "status": ended or "Unknown", "reason": reason, "message": fields.pop("message", ""),
            "lastTransitionTime": rfc3339(self.clock.now()),
        }  # fmt: skip
        status = {"state": state, "conditions": [condition], **fields}
        self.index.observe(await self.server.write_status(obj, status))

    def succeeded(self, name: str = "n") -> tuple[str, str]:
        """Status and reason of the Node's summary condition."""
        found = self.condition(name, "Succeeded")
        return found["status"], found["reason"]

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        conditions = self.node(name)["status"]["conditions"]
        return next((item for item in conditions if item["type"] == type_), {})

    async def types(self) -> list[str]:
        """Types of the entries about Nodes and the ends of Tasks."""
        entries = await self.log.query(EventFilter(), limit=1000)
        return [item.entry["type"] for item in entries if item.entry["type"].startswith(("node.", "task."))]

    @staticmethod
    async def _principal(username: str, uid: str) -> str:
        return f"p-{username}"


def _address(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _end_of(obj: Mapping[str, Any], type_: str, reason: str) -> EventBody:
    subject = subject_of(obj)
    digest = digest_of_json({})
    data: dict[str, Any] = {"round": 1, "reason": reason, "messageDigest": digest}
    return EventBody(f"{type_}/{subject.uid}/1", type_, "system", "system", subject, data)


def steps(*names: str, **fields: Any) -> list[dict[str, Any]]:
    """Plain steps of these names."""
    return [{**STEP, "name": name, **fields} for name in names]
