"""Graph reconciler: rolls the Tasks up, at most about once a second per Graph."""

from triplane.api.meta import PHASE_OF, Phase, State
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.pace import Pace
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding
from triplane.domain.events import graph_stream


class GraphReconciler:
    """A Graph is Ready once it is observed; its phase and counts sum up its Tasks."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        self._pace = Pace(context.clock)

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        uid = obj["metadata"]["uid"]
        await self._observer.observe(obj, stream=graph_stream(uid))
        if (left := self._pace.left(uid)) > 0:
            return left
        tasks = self._context.index.children("Task", "graph", f"{key.namespace}/{key.name}")
        phases = [PHASE_OF[State((task.get("status") or {}).get("state") or "pending")] for task in tasks]
        counts = {
            "total": len(phases),
            "succeeded": phases.count(Phase.SUCCEEDED),
            "failed": phases.count(Phase.FAILED) + phases.count(Phase.CANCELLED),
        }
        counts["active"] = counts["total"] - counts["succeeded"] - counts["failed"]
        status = {
            "phase": _phase(counts).value,
            "tasks": counts,
        }
        again = await self._status.write(obj, status, [Finding("Ready", "True", "Observed", _message(counts))])
        self._pace.note(uid)
        return again

    def forget(self, uid: str) -> None:
        """The Graph is gone."""
        self._pace.forget(uid)


def _phase(counts: dict[str, int]) -> Phase:
    if counts["total"] == 0:
        return Phase.PENDING
    if counts["active"]:
        return Phase.RUNNING
    return Phase.FAILED if counts["failed"] else Phase.SUCCEEDED


def _message(counts: dict[str, int]) -> str:
    if counts["total"] == 0:
        return "The Graph has no Tasks yet; apply a Node or a Task that names it"
    return f"{counts['succeeded']} of {counts['total']} Tasks accepted, {counts['failed']} failed"
