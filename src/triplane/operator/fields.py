"""What objects refer to: the secondary keys of the index, and whom a change concerns.

One table each, so that a new reference is one line. References are by name and may dangle: an object is found
by what it refers to whether or not that exists, which is how a dangling reference heals.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from triplane.api.text import GROUP
from triplane.domain.lens import bare_names
from triplane.domain.naming import object_name
from triplane.domain.task_review import DEFAULT_REVIEW_CAPABILITY

Object = Mapping[str, Any]
Extract = Callable[[Object], frozenset[str]]


def owner_uids(obj: Object) -> frozenset[str]:
    """UIDs in ``metadata.ownerReferences``."""
    return frozenset(owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ())


def _local(obj: Object, name: str | None) -> frozenset[str]:
    if not name:
        return frozenset()
    return frozenset({f"{obj['metadata'].get('namespace', '')}/{name}"})


def _locals(obj: Object, names: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(_local(obj, name) for name in names))


def _spec(obj: Object) -> Object:
    spec: Object = obj.get("spec") or {}
    return spec


def _ref_name(obj: Object, field: str) -> str | None:
    name: str | None = (_spec(obj).get(field) or {}).get("name")
    return name


def _by_name(field: str) -> Extract:
    return lambda obj: _local(obj, _ref_name(obj, field))


def _by_uid(field: str) -> Extract:
    def extract(obj: Object) -> frozenset[str]:
        uid = (_spec(obj).get(field) or {}).get("uid")
        return frozenset({uid}) if uid else frozenset()

    return extract


def _node_of(obj: Object) -> frozenset[str]:
    name = _ref_name(obj, "nodeRef")
    if name is None:
        name = next((owner["name"] for owner in triplane_owners(obj) if owner["kind"] == "Node"), None)
    return _local(obj, name)


def _works(obj: Object) -> list[Object]:
    """A Task's spec, or a Node's own steps: the blocks that carry the fields of ``Work``. The Tasks of a Workflow's
    steps speak for themselves, so nothing of them is looked up by their Node."""
    return list(_spec(obj).get("steps") or ()) if obj["kind"] == "Node" else [_spec(obj)]


def _agents_of(obj: Object) -> frozenset[str]:
    names = []
    for work in _works(obj):
        names.append((work.get("agentRef") or {}).get("name"))
        names.append(((work.get("review") or {}).get("agentRef") or {}).get("name"))
    return _locals(obj, [name for name in names if name])


def _capabilities_of(obj: Object) -> frozenset[str]:
    names: list[str] = []
    for work in _works(obj):
        names.extend(bare_names(work.get("requiredCapabilities")))
        review = work.get("review") or {}
        if not review.get("people") or review.get("agentRef") or review.get("capability"):
            names.append(review.get("capability") or DEFAULT_REVIEW_CAPABILITY)
    return _locals(obj, names)


def _tools_of(obj: Object) -> frozenset[str]:
    return _locals(obj, [name for work in _works(obj) for name in work.get("tools") or ()])


def _dependencies_of(obj: Object) -> frozenset[str]:
    """What must be settled before a Task: in ``dependsOn``, or the source of an input. Of a Node's or Workflow's own
    steps: the Tasks outside, for ``dependsOn`` names steps there."""
    task = obj["kind"] == "Task"
    names: list[str] = list(_spec(obj).get("dependsOn") or ()) if task else []
    for work in [_spec(obj)] if task else _spec(obj).get("steps") or ():
        for item in work.get("inputs") or ():
            source = item.get("from")
            edges = [source] if source else item.get("sources") or ()
            names.extend(edge["task"] for edge in edges if edge.get("task"))
    return _locals(obj, names)


def _steps_of(obj: Object) -> frozenset[str]:
    """Names of the Tasks a Node makes, or would make if the names were free: as its status has them once it has
    begun, before that those of its own steps."""
    name = obj["metadata"]["name"]
    planned = [step["task"] for step in (obj.get("status") or {}).get("steps") or ()]
    declared = [object_name(name, step["name"]) for step in _spec(obj).get("steps") or () if step.get("name")]
    return _locals(obj, planned or declared)


def _queue_of(obj: Object) -> frozenset[str]:
    """``<ns>/<graph>/<queue>`` of a Node that is in a queue."""
    queue, graph = (_spec(obj).get("queue") or {}).get("name"), _ref_name(obj, "graphRef")
    return _local(obj, f"{graph}/{queue}" if queue and graph else None)


FIELDS: Mapping[str, Mapping[str, Extract]] = {
    "Node": {
        "graph": _by_name("graphRef"),
        "workflow": _by_name("workflowRef"),
        "queue": _queue_of,
        "agent": _agents_of,
        "capability": _capabilities_of,
        "step": _steps_of,
        "dependency": _dependencies_of,
    },
    "Workflow": {"dependency": _dependencies_of},
    "Task": {
        "graph": _by_name("graphRef"),
        "node": _node_of,
        "agent": _agents_of,
        "capability": _capabilities_of,
        "tool": _tools_of,
        "dependency": _dependencies_of,
    },
    "Agent": {
        "harness": _by_name("harnessRef"),
        "capability": lambda obj: _locals(obj, _spec(obj).get("capabilities") or ()),
    },
    "AgentSession": {"task": _by_uid("taskRef"), "agent": _by_uid("agentRef")},
    "Artifact": {"task": _by_uid("taskRef"), "session": _by_uid("sessionRef")},
    "Review": {"task": _by_uid("taskRef")},
}
"""Kind → field → its values; documented at ``triplane.ports.ObjectIndex``."""


def triplane_owners(obj: Object) -> list[Object]:
    """The owner references that point at our own kinds."""
    return [
        owner
        for owner in obj["metadata"].get("ownerReferences") or ()
        if owner.get("apiVersion", "").startswith(f"{GROUP}/")
    ]
