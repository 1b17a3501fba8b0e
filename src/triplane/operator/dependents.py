"""Whom a change concerns: the keys to reconcile after an object was made, altered or deleted.

Over-asking costs one reconcile that changes nothing; under-asking costs up to a resync (about five
minutes). Finished work is left alone all the same: an edited Agent must not wake ten thousand old Tasks. And what is
decided by a spec is not woken by a status: a Graph whose counts move must not wake every Task in it each second.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from triplane.api.kinds import KINDS
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.controllers.key import Key
from triplane.domain.pattern import any_fits
from triplane.operator.fields import FIELDS, triplane_owners
from triplane.operator.index import Change, Index

Object = Mapping[str, Any]
Rule = Callable[[Index, Object], Iterator[Key]]


def concerned(index: Index, change: Change) -> set[Key]:
    """Self, owners, and those whose decisions read this object."""
    keys = {Key.of(change.object)}
    rules = [_ALWAYS]
    if _spec_changed(change):
        rules.append(_BY_SPEC)
    if _turned(change):
        rules.append(_BY_END)
    for obj in (change.before, change.after):
        if obj is None:
            continue
        keys.update(_owners(obj))
        for table in rules:
            if (rule := table.get(change.kind)) is not None:
                keys.update(rule(index, obj))
    return keys


def _spec_changed(change: Change) -> bool:
    """It came, went, is going, or is asked to be something else."""
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    return any(
        before["metadata"].get(field) != after["metadata"].get(field) for field in ("generation", "deletionTimestamp")
    )


def _turned(change: Change) -> bool:
    """It came, went, was decided, or is (or is no longer) in a cycle, which its other members must hear of."""
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    return finished(before) != finished(after) or _in_cycle(before) != _in_cycle(after)


def _in_cycle(obj: Object) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    stalled = (c for c in conditions if c["type"] == "Stalled" and c["status"] == "True")
    return any(c.get("reason") == "DependencyCycle" for c in stalled)


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


def _graph_spec(index: Index, obj: Object) -> Iterator[Key]:
    for kind in ("Node", "Task"):
        yield from _unfinished(index, kind, "graph", _path(obj))


def _workflow_spec(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Node", "workflow", _path(obj))


def _node(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Graph", "graphRef")


def _node_spec(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Task", "node", _path(obj))


def _node_end(index: Index, obj: Object) -> Iterator[Key]:
    """The next of its queue: the first that is not over. Those behind that one wait for it in any case."""
    for queue in FIELDS["Node"]["queue"](obj):
        waiting = [peer for peer in index.children("Node", "queue", queue) if not finished(peer)]
        if waiting:
            yield Key.of(min(waiting, key=_place))


def _place(obj: Object) -> tuple[str, str]:
    return str(obj["metadata"].get("creationTimestamp") or ""), str(obj["metadata"]["name"])


def _task(index: Index, obj: Object) -> Iterator[Key]:
    uid = obj["metadata"]["uid"]
    yield from _ref(obj, "Graph", "graphRef")
    yield from _ref(obj, "Node", "nodeRef")
    for kind in ("AgentSession", "Artifact"):
        yield from _unfinished(index, kind, "task", uid)


def _task_end(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Task", "dependency", _path(obj))
    yield from _unfinished(index, "Node", "step", _path(obj))  # it may stand where the Node's own is to be


def _agent_spec(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Task", "agent", _path(obj))
    yield from _unfinished(index, "AgentSession", "agent", obj["metadata"]["uid"])
    namespace = obj["metadata"].get("namespace", "")
    for capability in (obj.get("spec") or {}).get("capabilities") or ():
        yield from _unfinished(index, "Task", "capability", f"{namespace}/{capability}")


def _harness_spec(index: Index, obj: Object) -> Iterator[Key]:
    for agent in index.children("Agent", "harness", _path(obj)):
        yield Key.of(agent)
        yield from _agent_spec(index, agent)


def _capability_spec(index: Index, obj: Object) -> Iterator[Key]:
    for agent in index.children("Agent", "capability", _path(obj)):
        yield Key.of(agent)
    yield from _unfinished(index, "Task", "capability", _path(obj))


def _guideline_spec(index: Index, obj: Object) -> Iterator[Key]:
    """Unfinished Tasks it may be for: agents and capabilities are not looked at, for they are told by a placement."""
    namespace = obj["metadata"].get("namespace", "")
    scope = (obj.get("spec") or {}).get("scope") or {}
    for task in index.list("Task", None if namespace == SYSTEM_NAMESPACE else namespace):
        graph = ((task.get("spec") or {}).get("graphRef") or {}).get("name")
        if (
            any_fits(scope.get("namespaces"), task["metadata"].get("namespace", ""))
            and (scope.get("graphs") is None or graph in scope["graphs"])
            and not finished(task)
        ):
            yield Key.of(task)


def _tool_spec(index: Index, obj: Object) -> Iterator[Key]:
    yield from _unfinished(index, "Task", "tool", _path(obj))


def _of_task(index: Index, obj: Object) -> Iterator[Key]:
    yield from _ref(obj, "Task", "taskRef")


_ALWAYS: Mapping[str, Rule] = {
    "Node": _node,
    "Task": _task,
    "AgentSession": _of_task,
    "Artifact": _of_task,
    "Review": _of_task,
}
"""Whom every change concerns."""
_BY_SPEC: Mapping[str, Rule] = {
    "Graph": _graph_spec,
    "Workflow": _workflow_spec,
    "Node": _node_spec,
    "Agent": _agent_spec,
    "Harness": _harness_spec,
    "Capability": _capability_spec,
    "Guideline": _guideline_spec,
    "Tool": _tool_spec,
}
"""Whom a change concerns that is more than one of status."""
_BY_END: Mapping[str, Rule] = {"Node": _node_end, "Task": _task_end}
"""Whom it concerns that an object is there, is gone, was decided, or waits in a circle."""
