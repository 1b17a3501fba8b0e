"""Whether a Task is cancelled on purpose: itself, with its Node, or by its Node's failure mode or queue.

And under which Graph its Node began: what has begun ends with that.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from triplane.api.task import Task
from triplane.audit.entry import event_id
from triplane.controllers.context import Context
from triplane.controllers.task_plan import Object

KEPT: Final = 10_000
_WHY: Final = {
    "FailFast": "a step of Node {node} failed, and its failureMode is FailFast",
    "Replaced": "a later Node of the same queue replaced Node {node}",
}


class Aborts:
    """One serves all Tasks. What it finds in the log is final, so it is read once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: OrderedDict[str, str] = OrderedDict()
        self._began: OrderedDict[str, str] = OrderedDict()

    async def of(self, task: Task, node: Object | None) -> tuple[str, str] | None:
        """``(reason, message)`` when it is cancelled, else None."""
        name = task.metadata.name
        if task.spec.cancel:
            return "Cancelled", f"Task {name} was cancelled (spec.cancel)"
        if node is None:
            return None
        node_name = node["metadata"]["name"]
        if node["spec"].get("cancel"):
            return "Cancelled", f"Node {node_name} was cancelled (spec.cancel)"
        if node["spec"].get("failureMode") != "FailFast" and not node["spec"].get("queue"):
            return None
        reason = await self._aborted(node["metadata"]["uid"])
        if reason is None:
            return None
        return reason, _WHY.get(reason, "Node {node} was aborted").format(node=node_name)

    async def began_in(self, node_uid: str) -> str | None:
        """The stream of the Graph under which the Node began; None while it has not."""
        return await self._recorded(self._began, event_id("node.planned", node_uid, 1), _stream)

    async def _aborted(self, node_uid: str) -> str | None:
        return await self._recorded(self._found, event_id("node.aborted", node_uid, 1), _reason)

    async def _recorded(
        self, kept: OrderedDict[str, str], id_: str, said: Callable[[Mapping[str, Any]], str]
    ) -> str | None:
        if id_ in kept:
            kept.move_to_end(id_)
            return kept[id_]
        recorded = await self._context.log.get(id_)
        if recorded is None:
            return None
        kept[id_] = said(recorded.entry)
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[id_]


def _stream(entry: Mapping[str, Any]) -> str:
    return str(entry["stream"])


def _reason(entry: Mapping[str, Any]) -> str:
    return str(entry["data"]["reason"])
