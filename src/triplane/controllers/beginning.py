"""Sessions that are about to begin: together they may not be more than a budget lets begin.

What is spent counts a session from the moment it is claimed. From its first permit until then it is counted here: only
the operator writes permits, and none lives longer than ``PERMIT_SECONDS``.
"""

from collections.abc import Mapping

from triplane.controllers.context import Context
from triplane.domain.session import PERMIT_SECONDS, RunState, SessionView
from triplane.errors import Conflict


class AllTaken(Conflict):
    """As many sessions as may begin have begun, or are about to; whoever asks again later sees which."""


class Beginnings:
    """One for all Tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._until: dict[str, float] = {}
        """Session UID to when its permit is surely over, in the order in which they came."""
        self._beneath: dict[str, frozenset[str]] = {}
        """Session UID to the objects whose budgets it counts against."""
        self._cleared: set[str] = set()

    async def clear(self, namespace: str) -> None:
        """Void what an operator before this one permitted in the namespace: nobody remembers how many that were. Call
        it before a permit is decided."""
        if namespace not in self._cleared:
            await self._context.sessions.void_permits(namespace, "OperatorStarted: sessions are counted anew")
            self._cleared.add(namespace)

    async def take(self, session_uid: str, limits: Mapping[str, int]) -> None:
        """Count the session as about to begin, against the budgets of these objects (UID to how many may). Raises
        ``AllTaken`` when those that begun, and those that came before it, leave it no place."""
        now = self._context.clock.monotonic()
        for uid in [uid for uid, until in self._until.items() if until <= now]:
            self._leave(uid)
        self._until[session_uid] = now + PERMIT_SECONDS
        self._beneath[session_uid] = frozenset(limits)
        before = []
        for uid in self._until:
            if uid == session_uid:
                break
            before.append(uid)
        # In this order: who begins in between is counted twice, never not at all.
        views = await self._context.sessions.get_many(before) if before else {}
        spent = await self._context.sessions.spent(set(limits))
        waiting = [uid for uid in before if not begun(views.get(uid))]
        for holder, limit in limits.items():
            taken = spent[holder].sessions + sum(holder in self._beneath.get(uid, ()) for uid in waiting)
            if taken >= limit:
                self._leave(session_uid)
                raise AllTaken(f"{taken} sessions have begun or are about to, of {limit} that may; deciding again")

    def _leave(self, session_uid: str) -> None:
        self._until.pop(session_uid, None)
        self._beneath.pop(session_uid, None)


def begun(view: SessionView | None) -> bool:
    """Whether it counts as one of the sessions that were spent already."""
    return view is not None and any(run.state is not RunState.PERMITTED for run in view.runs)
