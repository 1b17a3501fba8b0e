"""One trace id for everything that happens for one Task: lines of operator, gateway and runner are joined by it.

It is derived, not handed on: whoever knows the Task's UID, which every log entry, offer and child carries, knows it.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def trace_id(root_uid: str) -> str:
    """32 hexadecimal digits (W3C Trace Context §3.2.2.3), never all zero."""
    return sha256(f"triplane trace\0{root_uid}".encode()).hexdigest()[:32]


def trace_of(obj: Mapping[str, Any]) -> str:
    """The trace of an object: its Task's, for what belongs to a Task; else its own."""
    task = (obj.get("spec") or {}).get("taskRef") or {}
    return trace_id(str(task.get("uid") or obj["metadata"]["uid"]))
