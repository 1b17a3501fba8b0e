"""Node reconciler: makes the Task of its step and tells how it goes."""

from typing import Any

from triplane.api.meta import PHASE_OF
from triplane.api.node import Node
from triplane.api.text import API_VERSION
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain.events import graph_stream
from triplane.domain.naming import object_name
from triplane.domain.node import NodeOutlook, from_task, outlived, waiting

Object = dict[str, Any]


class NodeReconciler:
    """One step, one Task, made once per incarnation of the Node."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        self._decisions = DecisionReader(context)

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        node = Node.model_validate(obj)
        graph = self._context.index.get("Graph", key.namespace, node.spec.graph_ref.name)
        stream = graph_stream(graph["metadata"]["uid"]) if graph is not None else "system"
        await self._observer.observe(obj, stream=stream)
        name = object_name(node.metadata.name, node.spec.steps[0].name)
        seen = await self._outlook(node, obj, graph, name)
        status = {
            "phase": PHASE_OF[seen.state].value,
            "state": seen.state.value,
            "steps": [{"name": node.spec.steps[0].name, "task": name, "state": seen.state.value}],
        }
        return await self._status.write(obj, status, seen.findings)

    async def _outlook(self, node: Node, obj: Object, graph: Object | None, name: str) -> NodeOutlook:
        task = self._context.index.get("Task", node.metadata.namespace, name)
        if task is None:
            if (ended := await self._ended(node, name)) is not None:
                return ended
            if graph is None or graph["metadata"].get("deletionTimestamp"):
                missing = node.spec.graph_ref.name
                return waiting("GraphNotFound", f"Graph {missing} does not exist; apply it")
            task = await self._create(node, obj, name)
        owners = [ref["uid"] for ref in task["metadata"].get("ownerReferences") or ()]
        if node.metadata.uid not in owners:
            return waiting(
                "TaskNameTaken",
                f"Task {name} exists and belongs to something else; delete it or rename the step",
                stalled=True,
            )
        return from_task(name, task.get("status"))

    async def _ended(self, node: Node, name: str) -> NodeOutlook | None:
        """A Task of this Node that ended and was deleted since is not made again."""
        for record in await self._context.graph.find("Task", node.metadata.namespace, name):
            owners = await self._context.graph.edges(record.uid, outgoing=False, kinds=frozenset({"owns"}))
            if all(edge.source != node.metadata.uid for edge in owners):
                continue
            decisions, _ = await self._decisions.read(record.uid)
            if decisions.accepted_round is not None or decisions.failed is not None:
                return outlived(name, accepted=decisions.accepted_round is not None)
        return None

    async def _create(self, node: Node, obj: Object, name: str) -> Object:
        step = node.spec.steps[0].wire()
        step.pop("name")
        annotations = obj["metadata"].get("annotations") or {}
        spec = {
            **step,
            "graphRef": node.spec.graph_ref.wire(),
            "nodeRef": {"name": node.metadata.name},
        }
        if requester := annotations.get("triplane.dev/requester"):
            spec["onBehalfOf"] = requester
        task, _ = await self._context.cluster.create(
            {
                "apiVersion": API_VERSION,
                "kind": "Task",
                "metadata": {
                    "name": name,
                    "namespace": node.metadata.namespace,
                    "labels": {
                        "app.kubernetes.io/managed-by": "triplane",
                        "triplane.dev/graph": object_name(node.spec.graph_ref.name),
                        "triplane.dev/node": object_name(node.metadata.name),
                    },
                    "ownerReferences": [
                        {
                            "apiVersion": API_VERSION,
                            "kind": "Node",
                            "name": node.metadata.name,
                            "uid": node.metadata.uid,
                            "controller": True,
                        }
                    ],
                },
                "spec": spec,
            }
        )
        self._context.index.put(task)
        self._context.enqueue(Key.of(task), 0.0)
        return task
