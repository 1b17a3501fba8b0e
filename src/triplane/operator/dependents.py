"""Whom a change concerns: the keys to reconcile after an object was made, altered or deleted.

Over-asking costs one reconcile that changes nothing; under-asking costs up to a resync (about five
minutes). Finished work is left alone all the same: an edited Agent must not wake ten thousand old Tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from triplane.api.kinds import KINDS
from triplane.controllers.key import Key
from triplane.operator.fields import triplane_owners
from triplane.operator.index import Change, Index

Object = Mapping[str, Any]


def concerned(index: Index, change: Change) -> set[Key]:
    """Self, owners, and those whose decisions read this object."""
    keys = {Key.of(change.object)}
    for obj in (change.before, change.after):
        if obj is not None:
            keys.update(_owners(obj))
            keys.update(_RULES[change.kind](index, obj))
    return keys


def finished(obj: Object) -> bool:
    """Decided, for good: ``Succeeded`` or ``Reviewed`` is True or False, and nothing that could heal stalls
    it."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    decided = any(c["type"] in ("Succeeded", "Reviewed") and c["status"] != "Unknown" for c in conditions)
    return decided and not any(c["type"] == "Stalled" and c["status"] == "True" for c in conditions)


def _owners(obj: Object) -> Iterator[Key]:
    for owner in triplane_owners(obj):
        if owner["kind"] in KINDS:
            yield Key(owner["kind"], obj["metadata"].get("namespace", ""), owner["name"])


def _unfinished(index: Index, kind: str, field: str, value: str) -> Iterator[Key]:
    return (Key.of(child) for child in index.children(kind, field, value) if not finished(child))


def _path(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _ref(obj: Object, kind: str, field: str) -> Iterator[Key]:
    name = ((obj.get("spec") or {}).get(field) or {}).get("name")
    if name:
        yield Key(kind, obj["metadata"].get("namespace", ""), name)


def _of_graph(index: Index, obj: Object) -> Iterator[Key]:
    for kind in ("Node", "Task"):
        yield from _unfinished(index, kind, "graph", _path(obj))


def _of_node(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Graph", "graphRef")
    yield from _unfinished(index, "Task", "node", _path(obj))


def _of_task(index: Index, obj: Object) -> Iterator[Key]:
    uid = obj["metadata"]["uid"]
    yield from _ref(obj, "Graph", "graphRef")
    yield from _ref(obj, "Node", "nodeRef")
    yield from _unfinished(index, "Task", "dependency", _path(obj))
    yield from _unfinished(index, "Node", "step", _path(obj))  # it may stand where the Node's own is to be
    for kind in ("AgentSession", "Artifact"):
        yield from _unfinished(index, kind, "task", uid)


def _of_agent(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Task", "agent", _path(obj))
    yield from _unfinished(index, "AgentSession", "agent", obj["metadata"]["uid"])
    namespace = obj["metadata"].get("namespace", "")
    for capability in (obj.get("spec") or {}).get("capabilities") or ():
        yield from _unfinished(index, "Task", "capability", f"{namespace}/{capability}")


def _of_harness(index: Index, obj: Object) -> Iterator[Key]:
    for agent in index.children("Agent", "harness", _path(obj)):
        yield Key.of(agent)
        yield from _of_agent(index, agent)


def _of_capability(index: Index, obj: Object) -> Iterator[Key]:
    for agent in index.children("Agent", "capability", _path(obj)):
        yield Key.of(agent)
    yield from _unfinished(index, "Task", "capability", _path(obj))


def _of_session(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Task", "taskRef")


def _of_artifact(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Task", "taskRef")


def _of_review(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Task", "taskRef")


_RULES: Mapping[str, Callable[[Index, Object], Iterator[Key]]] = {
    "Graph": _of_graph,
    "Node": _of_node,
    "Task": _of_task,
    "Agent": _of_agent,
    "Harness": _of_harness,
    "Capability": _of_capability,
    "AgentSession": _of_session,
    "Artifact": _of_artifact,
    "Review": _of_review,
}
