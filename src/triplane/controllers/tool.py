"""Tool reconciler: can it be offered as it stands?"""

from triplane.api.tool import Tool
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.ready import USABLE
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding, progress_findings
from triplane.domain.tool import tool_problem


class ToolReconciler:
    """Sets ``Ready`` and ``Stalled``; Tasks that wait for a Tool are woken by the watch, not from here. Whether its
    program or server answers is found out by each run that uses it."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status

    async def reconcile(self, key: Key) -> float | None:
        """Returns None: it waits for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        await self._observer.observe(obj)
        problem = tool_problem(Tool.model_validate(obj).spec)
        ready = USABLE if problem is None else Finding("Ready", "False", "ToolInvalid", problem)
        stalled = None if problem is None else ("ToolInvalid", problem)
        return await self._status.write(obj, {}, [ready, *progress_findings(working=None, stalled=stalled)])
