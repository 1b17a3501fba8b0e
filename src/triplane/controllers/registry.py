"""All reconcilers behind one call, and what happens when an object is gone."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from triplane.audit.model import SYSTEM_STREAM
from triplane.controllers import misfit
from triplane.controllers.agentsession import AgentSessionReconciler
from triplane.controllers.artifact import ArtifactReconciler
from triplane.controllers.capability import CapabilityReconciler
from triplane.controllers.context import Context
from triplane.controllers.expiry import Expiry
from triplane.controllers.graph import GraphReconciler
from triplane.controllers.key import Key
from triplane.controllers.narrowing import Narrowing
from triplane.controllers.node import NodeReconciler
from triplane.controllers.observe import Observer
from triplane.controllers.policy import PolicyReconciler
from triplane.controllers.projection import GraphProjector, ProjectedLog
from triplane.controllers.ready import AgentReconciler, ReadyReconciler
from triplane.controllers.signing import OperatorKeys
from triplane.controllers.status import StatusWriter
from triplane.controllers.task import TaskReconciler
from triplane.controllers.tool import ToolReconciler
from triplane.controllers.workflow import WorkflowReconciler
from triplane.domain.accounts import Accounts
from triplane.domain.events import graph_stream
from triplane.domain.warrant import Ceiling
from triplane.errors import TriplaneError
from triplane.ports import (
    Clock,
    Cluster,
    ContentStore,
    Contracts,
    EventLog,
    Expressions,
    GraphStore,
    ObjectIndex,
    PolicyEngine,
    SessionStore,
    SigningKeys,
)

EXPIRING = frozenset({"Node", "Task"})
"""Kinds with ``ttlSecondsAfterFinished``."""


Reconcile = Callable[[Key], Awaitable[float | None]]
CHILD_SECONDS = 10.0
"""How long the maker of a child is given to observe it."""


class Reconcilers:
    """What the operator's queue calls."""

    def __init__(
        self,
        cluster: Cluster,
        index: ObjectIndex,
        log: EventLog,
        sessions: SessionStore,
        graph: GraphStore,
        content: ContentStore,
        principal: Callable[[str, str], Awaitable[str]],
        clock: Clock,
        enqueue: Callable[[Key, float], None],
        *,
        expressions: Expressions,
        policies: PolicyEngine,
        contracts: Contracts,
        keys: SigningKeys,
        ceiling: Ceiling | None = None,
        accounts: Accounts | None = None,
        max_concurrent_sessions: int | None = None,
    ) -> None:
        self._max_concurrent_sessions = max_concurrent_sessions
        self._log = ProjectedLog(log, graph)
        self.signing = OperatorKeys(keys, self._log)
        """Which key signs; whoever runs this lets it follow rotations."""
        self._context = Context(
            cluster,
            index,
            self._log,
            sessions,
            graph,
            content,
            principal,
            clock,
            enqueue,
            expressions,
            policies,
            contracts,
            self.signing,
            ceiling or Ceiling(),
            accounts or Accounts(),
        )
        self._observer = Observer(self._context)
        self._projector = GraphProjector(self._context)
        self._status = status = StatusWriter(self._context)
        context, observer = self._context, self._observer
        ready = ReadyReconciler(context, observer, status)
        self._sessions = AgentSessionReconciler(context, observer, status)
        self._graphs = GraphReconciler(context, observer, status)
        self._nodes = NodeReconciler(context, observer, status)
        self._policies = PolicyReconciler(context, observer, status)
        self._expiry = Expiry(context)
        self._narrowing = Narrowing(context)
        self._misfits = misfit.Misfits(context, status)
        self._by_kind: Mapping[str, Callable[[Key], Awaitable[float | None]]] = {
            "Graph": self._graphs.reconcile,
            "Node": self._nodes.reconcile,
            "Workflow": WorkflowReconciler(context, observer, status).reconcile,
            "Task": TaskReconciler(context, observer, status).reconcile,
            "Agent": AgentReconciler(context, observer, status).reconcile,
            "Harness": ready.reconcile,
            "Capability": CapabilityReconciler(context, observer, status).reconcile,
            "Guideline": ready.reconcile,
            "Tool": ToolReconciler(context, observer, status).reconcile,
            "Policy": self._policies.reconcile,
            "AgentSession": self._child(self._sessions.reconcile),
            "Artifact": self._child(ArtifactReconciler(context, observer, status).reconcile),
            "Review": self._review,
        }

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object forward. Returns the seconds after which it wants to be called again, or None.

        Raises ``TriplaneError``: the queue tries again with backoff; nothing is half done that the next try
        does not finish.
        """
        if self._log.behind:
            await self.project()
        await self._narrowing.look(key)
        await self._stop_deleted(key)
        try:
            again = await self._by_kind[key.kind](key)
        except ValidationError as error:
            if key.kind not in misfit.FINDINGS:
                raise
            again = await self._misfits.tell(key, error)
        if again is None and key.kind in EXPIRING:
            return await self._expiry.expire(key)
        return again

    async def _stop_deleted(self, key: Key) -> None:
        """What runs under an object that is being deleted is stopped now: somebody's finalizer may keep the object."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or key.kind not in ("Task", "AgentSession") or not obj["metadata"].get("deletionTimestamp"):
            return
        await self._stop(key.kind, obj)

    async def _stop(self, kind: str, obj: Mapping[str, Any]) -> None:
        uid, name = obj["metadata"]["uid"], f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
        reason = f"{kind}Deleted: {kind} {name} was deleted"
        sessions = (
            [uid]
            if kind == "AgentSession"
            else [session.session_uid for session in await self._context.sessions.open_sessions(uid)]
        )
        for session_uid in sessions:
            await self._end(session_uid, reason)

    def _child(self, reconcile: Reconcile) -> Reconcile:
        """Whoever makes a child observes it next. If it died in between and nothing led back there, this does."""

        async def observed(key: Key) -> float | None:
            again = await reconcile(key)
            obj = self._context.index.get(key.kind, key.namespace, key.name)
            if obj is None or self._observer.has_seen(obj):
                return again
            if _age_seconds(obj, self._context.clock.now()) < CHILD_SECONDS:
                return min(filter(None, (again, CHILD_SECONDS)))
            task = Key("Task", key.namespace, obj["spec"]["taskRef"]["name"])
            await self._observer.observe(obj, stream=self._stream_of(task))
            return again

        return observed

    async def _review(self, key: Key) -> float | None:
        """A Review changes nothing itself: its Task decides."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is not None:
            task = Key("Task", key.namespace, obj["spec"]["taskRef"]["name"])
            await self._observer.observe(obj, stream=self._stream_of(task))
            self._context.enqueue(task, 0.0)
        return None

    def _stream_of(self, task: Key) -> str:
        """The stream of the Task's Graph, where its decisions are; the system's while there is no such Graph."""
        found = self._context.index.get(task.kind, task.namespace, task.name)
        name = found["spec"]["graphRef"]["name"] if found is not None else ""
        graph = self._context.index.get("Graph", task.namespace, name)
        return graph_stream(graph["metadata"]["uid"]) if graph is not None else SYSTEM_STREAM

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        """An object was deleted: log it, and end what ran under it."""
        uid = obj["metadata"]["uid"]
        if kind in ("Task", "AgentSession"):
            await self._stop(kind, obj)
        if kind == "Policy":
            await self._policies.spread(obj)
        await self._narrowing.gone(kind, obj)
        await self._observer.gone(obj)
        self._sessions.forget(uid)
        self._status.forget(uid)
        self._nodes.forget(uid)
        self._graphs.forget(uid)
        self._policies.forget(uid)

    async def _end(self, session_uid: str, reason: str) -> None:
        await self._context.sessions.revoke(session_uid, reason)
        view = await self._context.sessions.get(session_uid)
        if view is not None:
            await self._sessions.complete_log(view)

    async def catch_up(self) -> None:
        """Find what was deleted while no operator ran: kept resources and open sessions whose object is no
        longer there. Call it once the index is complete."""
        await self._context.sessions.limit(None, self._max_concurrent_sessions)
        await self.project()
        index = self._context.index
        kept = await self._context.graph.generations()
        await self._narrowing.begin(kept)
        for uid, (generation, gone) in kept.items():
            if gone:
                continue
            self._observer.prime(uid, generation)
            if index.by_uid(uid) is None:
                await self._look_for(uid)
        for session in await self._context.sessions.open_sessions():
            if index.by_uid(session.session_uid) is None:
                now = await self._context.cluster.get("AgentSession", session.namespace, session.name)
                if now is None or now["metadata"]["uid"] != session.session_uid:
                    await self._end(session.session_uid, "AgentSessionDeleted: it was deleted while no operator ran")

    async def project(self) -> None:
        """Bring the graph store up to the head of the log, if a crash of ours or of its server left it behind.
        Call it now and then; it is one read when there is nothing new."""
        self._log.behind = False
        try:
            await self._projector.catch_up()
        except TriplaneError:
            self._log.behind = True
            raise

    async def _look_for(self, uid: str) -> None:
        """A kept resource is not in the index: take it in after all, or note its end."""
        record = await self._context.graph.get(uid)
        if record is None:
            return
        now = await self._context.cluster.get(record.kind, record.namespace, record.name)
        if now is not None and now["metadata"]["uid"] == uid:
            self._context.index.put(now)
        else:
            await self.gone(record.kind, _remains(record))

    def has_seen(self, obj: Mapping[str, Any]) -> bool:
        """Whether this generation is known to be logged and kept: then a finished object needs no reconcile."""
        return self._observer.has_seen(obj)


def _age_seconds(obj: Mapping[str, Any], now: datetime) -> float:
    """How old the object is; nothing where the server did not say."""
    made = obj["metadata"].get("creationTimestamp")
    return (now - datetime.fromisoformat(made)).total_seconds() if made else 0.0


def _remains(record: Any) -> dict[str, Any]:
    """What is still known of a deleted object, in the shape of one."""
    return {
        "kind": record.kind,
        "metadata": {
            "namespace": record.namespace,
            "name": record.name,
            "uid": record.uid,
            "generation": record.generation,
            "labels": dict(record.labels),
        },
        "spec": dict(record.spec),
    }
