"""Whether a Task is cancelled on purpose: itself, with its Node, or by its Node's failure mode or queue."""

from collections import OrderedDict
from typing import Final

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
    """One serves all Tasks. An abort is final, so it is read once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: OrderedDict[str, str] = OrderedDict()

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

    async def _aborted(self, node_uid: str) -> str | None:
        if node_uid in self._found:
            self._found.move_to_end(node_uid)
            return self._found[node_uid]
        entry = await self._context.log.get(event_id("node.aborted", node_uid, 1))
        if entry is None:
            return None
        self._found[node_uid] = str(entry.entry["data"]["reason"])
        if len(self._found) > KEPT:
            self._found.popitem(last=False)
        return self._found[node_uid]
