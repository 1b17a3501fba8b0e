"""Objects as the API server would return them, for tests of the operator's shell."""

from typing import Any


def make(
    kind: str, name: str, *, uid: str | None = None, rv: int = 1, namespace: str = "team", **parts: Any
) -> dict[str, Any]:
    """An object of ``kind`` with the given spec, status, owners and annotations."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{kind}-{name}",
        "resourceVersion": str(rv),
        "generation": parts.pop("generation", 1),
    }
    for key in ("ownerReferences", "annotations", "managedFields"):
        if key in parts:
            metadata[key] = parts.pop(key)
    return {"apiVersion": "triplane.dev/v1alpha1", "kind": kind, "metadata": metadata, **parts}


def conditions(**statuses: str) -> dict[str, Any]:
    """A status with these conditions."""
    return {"conditions": [{"type": kind, "status": status} for kind, status in statuses.items()]}
