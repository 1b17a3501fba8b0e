"""What a log line says of the object that is worked on."""

from collections.abc import Mapping
from typing import Any

from triplane.domain.trace import trace_of


def about(kind: str, obj: Mapping[str, Any]) -> dict[str, object]:
    """What every log line written while an object is at work says of it."""
    metadata = obj["metadata"]
    return {
        "kind": kind,
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 1),
        "trace_id": trace_of(obj),
    }
