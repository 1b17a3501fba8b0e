"""AgentSession reconciler: projects the session store into status and closes gaps left in the log."""

from triplane.api.meta import PHASE_OF
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain import events
from triplane.domain.session import RunState, SessionView
from triplane.domain.session_outlook import outlook, summary


class AgentSessionReconciler:
    """The truth is in the store; this makes it visible, and wakes the Task."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        self._complete: dict[str, dict[int, RunState]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        self._context.enqueue(Key("Task", key.namespace, obj["spec"]["taskRef"]["name"]), 0.0)
        view = await self._context.sessions.get(obj["metadata"]["uid"])
        if view is None:
            return None
        await self.complete_log(view)
        seen = outlook(view)
        status = {
            "phase": PHASE_OF[seen.state].value,
            "state": seen.state.value,
            **summary(view),
        }
        return await self._status.write(obj, status, seen.findings, transient=seen.transient)

    async def complete_log(self, view: SessionView) -> None:
        """Append what a gateway that died between its store and the log left out; the bodies are the same."""
        complete = self._complete.get(view.offer.session_uid, {})
        incomplete = [run.run for run in view.runs if complete.get(run.run) is not run.state]
        if any(view.runs[run - 1].records for run in incomplete):
            view = await self._context.sessions.get(view.offer.session_uid, records=True) or view
        bodies = [body for run in incomplete for body in events.run_history(view, view.runs[run - 1])]
        if bodies:
            recorded = await self._context.log.get_many([body.id for body in bodies])
            missing = [body for body in bodies if body.id not in recorded]
            if missing:
                await self._context.log.append(missing)
        self._complete[view.offer.session_uid] = {run.run: run.state for run in view.runs}

    def forget(self, session_uid: str) -> None:
        """The object is gone: nobody will ask for its log again."""
        self._complete.pop(session_uid, None)
