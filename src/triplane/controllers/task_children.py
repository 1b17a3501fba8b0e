"""The objects a Task owns: made under deterministic names, adopted only when they are this Task's."""

from collections.abc import Mapping
from typing import Any

from triplane.api.text import API_VERSION
from triplane.controllers.context import Context
from triplane.controllers.task_gather import Gathered
from triplane.controllers.task_plan import Object
from triplane.domain.events import graph_stream
from triplane.domain.naming import fingerprint, object_name
from triplane.errors import Conflict
from triplane.ports import KubeEvent

OTHER_NAMES = 3
"""Names tried when somebody else's Review has the deterministic one."""


async def create_child(context: Context, kind: str, name: str, spec: Mapping[str, Any], at: Gathered) -> Object:
    """Make the object, or adopt the one a predecessor made for this very Task."""
    obj, made = await context.cluster.create(_child(kind, name, spec, at))
    if not made:
        if obj["spec"].get("taskRef", {}).get("uid") != at.obj["metadata"]["uid"]:
            raise Conflict(f"{kind} {name} exists and belongs to another Task; delete it")
        if obj["metadata"].get("deletionTimestamp"):
            raise Conflict(f"{kind} {name} is being deleted; it is made anew when it is gone")
    context.index.put(obj)
    return obj


async def create_review(context: Context, name: str, spec: Mapping[str, Any], at: Gathered) -> Object:
    """Make the Review, or adopt the one a predecessor made, which says exactly the same.

    Users may make Reviews too, and the name can be foreseen. Somebody else's is never adopted: then the next name
    is taken, so that squatting on one stops nothing.
    """
    for number in range(1 + OTHER_NAMES):
        free = name if number == 0 else object_name(name, fingerprint(at.obj["metadata"]["uid"], name, str(number)))
        obj, made = await context.cluster.create(_child("Review", free, spec, at))
        ours = all(obj["spec"].get(key) == value for key, value in spec.items())
        if made or (ours and not obj["metadata"].get("deletionTimestamp")):
            context.index.put(obj)
            return obj
    raise Conflict(f"Review {name} and {OTHER_NAMES} names after it belong to others; delete them")


def _child(kind: str, name: str, spec: Mapping[str, Any], at: Gathered) -> Object:
    task = at.obj["metadata"]
    labels = {
        "app.kubernetes.io/managed-by": "triplane",
        "triplane.dev/graph": object_name(at.obj["spec"]["graphRef"]["name"]),
        "triplane.dev/task": object_name(task["name"]),
    }
    if at.node is not None:
        labels["triplane.dev/node"] = object_name(at.node["metadata"]["name"])
    owner = {"apiVersion": API_VERSION, "kind": "Task", "name": task["name"], "uid": task["uid"], "controller": True}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": task["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": dict(spec),
    }


def stream_of(at: Gathered) -> str:
    """The stream of the Graph the work began under; a Task withdrawn before that has only the system's."""
    for session in at.facts.sessions:
        if session.view is not None:
            return graph_stream(session.view.offer.graph_uid)
    if at.began_in is not None:
        return at.began_in
    return graph_stream(at.graph["metadata"]["uid"]) if at.graph is not None else "system"


async def tell(context: Context, at: Gathered, type_: str, reason: str, message: str, key: str) -> None:
    """An Event about the Task, once per reason and ``key``."""
    await context.cluster.emit(
        KubeEvent(
            regarding=at.obj,
            type=type_,
            reason=reason,
            message=message,
            key=f"{at.obj['metadata']['uid']}/{reason}/{key}",
        )
    )
