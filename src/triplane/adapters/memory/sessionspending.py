"""What runs use, and what that comes to beneath a Task, Node or Graph; twin of Postgres'."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from triplane.adapters.memory.sessionmemory import SessionMemory
from triplane.domain.session import LIVE_RUN_STATES, Spent, Usage
from triplane.domain.spending import RunCost, check_usage, cost_of, larger, spent_by


class Spending(SessionMemory):
    """``SessionStore.report`` and ``spent``."""

    async def report(self, session_uid: str, run: int, usage: Usage) -> None:
        """See ``SessionStore.report``."""
        check_usage(usage)
        view = self._known(session_uid, run)
        if view.state in LIVE_RUN_STATES:
            self._put(session_uid, replace(view, usage=larger(view.usage, usage)))

    async def spent(self, uids: Collection[str]) -> Mapping[str, Spent]:
        """See ``SessionStore.spent``."""
        return {uid: spent_by(self._costs(uid)) for uid in uids}

    def _costs(self, uid: str) -> Iterator[RunCost]:
        now = self._clock.now()
        for session in self._sessions.values():
            if uid in (session.offer.task_uid, session.offer.node_uid, session.offer.graph_uid):
                yield from (cost for run in session.runs if (cost := cost_of(run, now)) is not None)
