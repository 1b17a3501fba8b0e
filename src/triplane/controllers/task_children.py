"""The objects a Task owns: made under deterministic names, adopted only when they are this Task's."""

from collections.abc import Mapping
from typing import Any

from triplane.api.text import API_VERSION
from triplane.controllers.context import Context
from triplane.controllers.task_gather import Gathered
from triplane.controllers.task_plan import Object
from triplane.domain.events import graph_stream
from triplane.domain.naming import object_name
from triplane.errors import Conflict


async def create_child(context: Context, kind: str, name: str, spec: Mapping[str, Any], at: Gathered) -> Object:
    """Make the object, or adopt the one a predecessor made for this very Task."""
    task = at.obj["metadata"]
    labels = {
        "app.kubernetes.io/managed-by": "triplane",
        "triplane.dev/graph": object_name(at.obj["spec"]["graphRef"]["name"]),
        "triplane.dev/task": object_name(task["name"]),
    }
    if at.node is not None:
        labels["triplane.dev/node"] = object_name(at.node["metadata"]["name"])
    obj, made = await context.cluster.create(
        {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": task["namespace"],
                "labels": labels,
                "ownerReferences": [
                    {
                        "apiVersion": API_VERSION,
                        "kind": "Task",
                        "name": task["name"],
                        "uid": task["uid"],
                        "controller": True,
                    }
                ],
            },
            "spec": dict(spec),
        }
    )
    if not made and obj["spec"].get("taskRef", {}).get("uid") != task["uid"]:
        raise Conflict(f"{kind} {name} exists and belongs to another Task; delete it")
    context.index.put(obj)
    return obj


def stream_of(at: Gathered) -> str:
    """The stream of the Graph the work began under; a Task withdrawn before that has only the system's."""
    for session in at.facts.sessions:
        if session.view is not None:
            return graph_stream(session.view.offer.graph_uid)
    return graph_stream(at.graph["metadata"]["uid"]) if at.graph is not None else "system"
