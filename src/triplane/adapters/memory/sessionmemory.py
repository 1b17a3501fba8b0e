"""What every part of the session store in memory stands on: the sessions, their runs, the bells."""

from collections.abc import Iterator
from datetime import UTC, datetime

from triplane.adapters.memory.sessionline import KeptSession, Line
from triplane.adapters.wakeup import Wakeup
from triplane.domain.session import RunView
from triplane.errors import NotFound
from triplane.ports import Clock


class SessionMemory:
    """The sessions of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, KeptSession] = {}
        self._revision = 0
        self._line = Line(self._sessions, clock.now())
        self._bells: set[Wakeup] = set()

    def _ring(self) -> None:
        for bell in self._bells:
            bell.ring()

    def _now(self) -> str:
        return self._text(self._clock.now())

    @staticmethod
    def _text(time: datetime) -> str:
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _put(self, session_uid: str, view: RunView) -> None:
        self._sessions[session_uid].runs[view.run - 1] = view

    def _run(self, session_uid: str, run: int) -> RunView | None:
        session = self._sessions.get(session_uid)
        return session.runs[run - 1] if session and 1 <= run <= len(session.runs) else None

    def _known(self, session_uid: str, run: int) -> RunView:
        view = self._run(session_uid, run)
        if view is None:
            raise NotFound(f"session {session_uid} has no run {run}: it was never permitted")
        return view

    def _live_runs(self) -> Iterator[tuple[str, RunView]]:
        for uid, session in self._sessions.items():
            if session.live:
                yield uid, session.runs[-1]
