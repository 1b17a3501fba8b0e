"""The smallest valid object of each kind, as its author would send it."""

from typing import Any

from tests.e2e.api import resource

DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32
BY_THE_OPERATOR = ("AgentSession", "Artifact")

_REF = {"name": "some", "uid": "00000000-0000-0000-0000-000000000000"}
_STEP = {"objective": "Count the files", "agentRef": {"name": "counter"}}
_SPECS: dict[str, dict[str, Any]] = {
    "Graph": {"title": "A workstream"},
    "Node": {"graphRef": {"name": "graph"}, "steps": [{"name": "count", **_STEP}]},
    "Workflow": {"steps": [{"name": "count", **_STEP}]},
    "Task": {"graphRef": {"name": "graph"}, **_STEP},
    "Agent": {"harnessRef": {"name": "harness"}, "capabilities": ["review"]},
    "Harness": {"exec": {"program": "count.py"}},
    "Capability": {"instructions": "Count carefully."},
    "Guideline": {"text": "Count twice."},
    "Tool": {"builtin": "clock"},
    "Policy": {
        "match": {"kinds": ["Task"]},
        "stages": ["Admission"],
        "validations": [{"expression": "true"}],
    },
    "AgentSession": {
        "taskRef": _REF,
        "agentRef": _REF,
        "role": "Producer",
        "round": 1,
        "snapshotDigest": DIGEST,
        "authority": {},
        "authorityDigest": DIGEST,
        "snapshot": [{"role": "program", "name": "count.py", "digest": DIGEST, "basis": "content"}],
    },
    "Artifact": {
        "name": "report",
        "digest": DIGEST,
        "mediaType": "text/plain",
        "size": 3,
        "taskRef": _REF,
        "sessionRef": _REF,
        "run": 1,
        "round": 1,
        "materials": [],
    },
    "Review": {
        "taskRef": _REF,
        "round": 1,
        "verdict": "Approve",
        "subjects": [{"name": "report", "digest": DIGEST}],
    },
}


def valid(kind: str, namespace: str, name: str = "sample", **spec: Any) -> dict[str, Any]:
    """A valid object; keyword arguments replace or add fields of its spec."""
    return resource(kind, namespace, name, {**_SPECS[kind], **spec})


def operator_task(namespace: str, name: str = "made", *, requester: str = "somebody") -> dict[str, Any]:
    """A Task as the operator makes it from a Node."""
    task = valid("Task", namespace, name, nodeRef={"name": "node"}, onBehalfOf=requester)
    task["metadata"]["labels"] = {"triplane.dev/node": "node"}
    return task


def operator_review(namespace: str, name: str = "made") -> dict[str, Any]:
    """A Review as the operator makes it from a review session's verdict."""
    review = valid("Review", namespace, name, sessionRef=_REF, agentRef=_REF)
    review["metadata"]["labels"] = {"triplane.dev/task": "some"}
    return review
