"""All reconcilers behind one call, and what happens when an object is gone."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from triplane.audit.model import SYSTEM_STREAM
from triplane.controllers.agentsession import AgentSessionReconciler
from triplane.controllers.artifact import ArtifactReconciler
from triplane.controllers.context import Context
from triplane.controllers.graph import GraphReconciler
from triplane.controllers.key import Key
from triplane.controllers.node import NodeReconciler
from triplane.controllers.observe import Observer
from triplane.controllers.ready import ReadyReconciler
from triplane.controllers.status import StatusWriter
from triplane.controllers.task import TaskReconciler
from triplane.domain.events import graph_stream
from triplane.ports import Clock, Cluster, ContentStore, EventLog, GraphStore, ObjectIndex, SessionStore


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
    ) -> None:
        self._context = Context(cluster, index, log, sessions, graph, content, principal, clock, enqueue)
        self._observer = Observer(self._context)
        self._status = status = StatusWriter(self._context)
        context, observer = self._context, self._observer
        ready = ReadyReconciler(context, observer, status)
        self._sessions = AgentSessionReconciler(context, observer, status)
        self._by_kind: Mapping[str, Callable[[Key], Awaitable[float | None]]] = {
            "Graph": GraphReconciler(context, observer, status).reconcile,
            "Node": NodeReconciler(context, observer, status).reconcile,
            "Task": TaskReconciler(context, observer, status).reconcile,
            "Agent": ready.reconcile,
            "Harness": ready.reconcile,
            "Capability": ready.reconcile,
            "AgentSession": self._sessions.reconcile,
            "Artifact": ArtifactReconciler(context, observer, status).reconcile,
            "Review": self._review,
        }

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object forward. Returns the seconds after which it wants to be called again, or None.

        Raises ``TriplaneError``: the queue tries again with backoff; nothing is half done that the next try
        does not finish.
        """
        return await self._by_kind[key.kind](key)

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
        namespace = obj["metadata"].get("namespace", "")
        reason = f"{kind}Deleted: {kind} {namespace}/{obj['metadata']['name']} was deleted"
        if kind == "AgentSession":
            await self._end(uid, reason)
        elif kind == "Task":
            for view in await self._context.sessions.open_sessions():
                if view.offer.task_uid == uid:
                    await self._end(view.offer.session_uid, reason)
        elif kind == "Graph":
            for task in self._context.index.children("Task", "graph", f"{namespace}/{obj['metadata']['name']}"):
                self._context.enqueue(Key.of(task), 0.0)
        await self._observer.gone(obj)
        self._sessions.forget(uid)
        self._status.forget(uid)

    async def _end(self, session_uid: str, reason: str) -> None:
        await self._context.sessions.revoke(session_uid, reason)
        view = await self._context.sessions.get(session_uid)
        if view is not None:
            await self._sessions.complete_log(view)

    async def catch_up(self) -> None:
        """Find what was deleted while no operator ran: kept resources and open sessions whose object is no
        longer there. Call it once the index is complete."""
        index = self._context.index
        for record in await self._context.graph.list():
            if record.gone or index.by_uid(record.uid) is not None:
                continue
            now = await self._context.cluster.get(record.kind, record.namespace, record.name)
            if now is not None and now["metadata"]["uid"] == record.uid:
                index.put(now)
                continue
            await self.gone(record.kind, _remains(record))
        for view in await self._context.sessions.open_sessions():
            if index.by_uid(view.offer.session_uid) is None:
                now = await self._context.cluster.get("AgentSession", view.offer.namespace, view.offer.name)
                if now is None or now["metadata"]["uid"] != view.offer.session_uid:
                    await self._end(view.offer.session_uid, "AgentSessionDeleted: it was deleted while no operator ran")


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
