"""Finished work is deleted ``ttlSecondsAfterFinished`` after its end; the evidence stays, and nothing is run again.

As with a Job of batch/v1, the end is the transition of the summary condition. The garbage collector deletes what the
object owns. Work that unfinished Tasks still depend on is kept until they are over: their inputs are found through it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.domain.conditions import condition

IN_USE_SECONDS = 10.0
"""How often work that others still depend on is looked at again."""
LONGEST_SECONDS = 3600.0
"""A later end is come back for at this interval, so that a changed clock cannot hold it back for days."""


class Expiry:
    """Deletes Nodes, and Tasks that no Node owns, when their time is up."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def expire(self, key: Key) -> float | None:
        """Delete the object if it is due. Returns the seconds until it may be, None when it need not be looked at."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        ttl = obj["spec"].get("ttlSecondsAfterFinished")
        ended = _ended(obj)
        if ttl is None or ended is None or (key.kind == "Task" and obj["spec"].get("nodeRef")):
            return None
        left = ttl - (self._context.clock.now() - ended).total_seconds()
        if left > 0:
            return float(min(left, LONGEST_SECONDS))
        if self._in_use(obj):
            return IN_USE_SECONDS
        await self._context.cluster.delete(obj)
        return None

    def _in_use(self, obj: Mapping[str, Any]) -> bool:
        """Whether an unfinished Task depends on this Task, or on one of this Node's; or will, when an unfinished Node
        makes it."""
        namespace = obj["metadata"]["namespace"]
        return any(
            _ended(later) is None and not later["metadata"].get("deletionTimestamp")
            for name in self._tasks(obj)
            for later in self._dependents(namespace, f"{namespace}/{name}")
        )

    def _dependents(self, namespace: str, task: str) -> Iterator[Mapping[str, Any]]:
        index = self._context.index
        yield from index.children("Task", "dependency", task)
        yield from index.children("Node", "dependency", task)
        for workflow in index.children("Workflow", "dependency", task):
            yield from index.children("Node", "workflow", f"{namespace}/{workflow['metadata']['name']}")

    def _tasks(self, obj: Mapping[str, Any]) -> Iterator[str]:
        if obj["kind"] == "Task":
            yield obj["metadata"]["name"]
        else:
            for task in self._context.index.children("Task", "owner", obj["metadata"]["uid"]):
                yield task["metadata"]["name"]


def _ended(obj: Mapping[str, Any]) -> datetime | None:
    """When the object was over; None while it is not."""
    told = condition(obj.get("status"), "Succeeded")
    if told is None or told["status"] == "Unknown":
        return None
    return datetime.fromisoformat(told["lastTransitionTime"])
