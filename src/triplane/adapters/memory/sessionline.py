"""The line of sessions that wait to be claimed: who is next, who is held, who is asked for. Twin of what
``postgres.sessionsql`` says in SQL."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from triplane.domain.launch import ASKED_SECONDS, Bar, StoredPermit, held_by, pace_after
from triplane.domain.session import (
    LIVE_RUN_STATES,
    HeldBy,
    LiveRun,
    Offer,
    OpenSession,
    Outstanding,
    RunState,
    RunView,
)


@dataclass(slots=True, eq=False)
class KeptSession:
    """Everything the memory store keeps of one session."""

    offer: Offer
    position: int
    runs: list[RunView] = field(default_factory=list)
    permits: dict[int, StoredPermit] = field(default_factory=dict)
    digests: dict[tuple[int, int], str] = field(default_factory=dict)
    revoked: str | None = None
    closed: bool = False
    waiting: bool = True
    """Claimable once it has a valid permit."""
    wanted: bool = False
    wanted_at: datetime | None = None

    @property
    def claimable(self) -> bool:
        """Nothing but a permit is missing, or not even that."""
        unclaimed = not self.runs or self.runs[-1].state is RunState.PERMITTED
        return self.revoked is None and not self.closed and unclaimed

    @property
    def live(self) -> bool:
        return bool(self.runs) and self.runs[-1].state in LIVE_RUN_STATES

    def leave(self) -> None:
        """Leave the line: it is claimed, over, or passed over."""
        self.waiting = self.wanted = False

    def want(self, now: datetime) -> None:
        self.wanted, self.wanted_at = True, now

    def asked_lately(self, now: datetime) -> bool:
        at = self.wanted_at
        return self.wanted and at is not None and at > now - timedelta(seconds=ASKED_SECONDS)

    def live_run(self) -> LiveRun:
        """The last run, which is live."""
        offer, run = self.offer, self.runs[-1]
        assert run.runner is not None
        assert run.instance is not None
        return LiveRun(
            session_uid=offer.session_uid,
            namespace=offer.namespace,
            name=offer.name,
            task_uid=offer.task_uid,
            graph_uid=offer.graph_uid,
            agent_uid=offer.agent_uid,
            run=run.run,
            counter=run.counter,
            runner=run.runner,
            instance=run.instance,
        )

    def opened(self) -> OpenSession:
        """Without what it works on."""
        offer, last = self.offer, self.runs[-1] if self.runs else None
        known = OpenSession(offer.session_uid, offer.namespace, offer.name, offer.task_uid)
        if last is None:
            return known
        return OpenSession(
            known.session_uid,
            known.namespace,
            known.name,
            known.task_uid,
            last.run,
            last.state,
            last.runner,
            last.instance,
        )


@dataclass(frozen=True, slots=True)
class _Live:
    """Live runs by Agent and by Graph; under ``""`` all of them."""

    agents: Counter[str]
    graphs: Counter[str]


class Line:
    """The rules of the line over the store's sessions, which it reads and of which it sets ``wanted`` alone."""

    def __init__(self, sessions: Mapping[str, KeptSession], now: datetime) -> None:
        self._sessions = sessions
        self._revisions: Counter[str] = Counter()
        self._voids: dict[str, Bar] = {}
        self._limits: dict[str, tuple[int | None, datetime]] = {}
        self._pace = 0.0
        self._paced_at = now

    def limit(self, agent_uid: str, most: int | None, decided_at: datetime) -> bool:
        """Note it, unless it is known or something newer is; whether it was noted."""
        known, since = self._limits.get(agent_uid, (None, decided_at))
        if known == most or since > decided_at:
            return False
        self._limits[agent_uid] = (most, decided_at)
        return True

    def revoked(self, session: KeptSession, revision: int) -> None:
        self._revisions[session.offer.task_uid] = revision

    def void(self, namespace: str, bar: Bar, now: datetime) -> None:
        """Note it for this namespace, or all (``""``); whose permit a runner had asked for is wanted again."""
        for session in self._sessions.values():
            asked = session.wanted_at is not None and namespace in ("", session.offer.namespace)
            if asked and not session.wanted and self.usable(session, now):
                session.want(now)
        self._voids[namespace] = bar

    def bar_of(self, session: KeptSession) -> Bar:
        """What the permits of the session are held against."""
        voids = (self._voids.get(namespace, Bar()) for namespace in ("", session.offer.namespace))
        return Bar.newest(self._revisions[session.offer.task_uid], *voids)

    def pace(self, now: datetime, *, claims: int = 0) -> float:
        """The pace of claims now, after ``claims`` more."""
        self._pace = pace_after(self._pace, (now - self._paced_at).total_seconds(), claims=claims)
        self._paced_at = now
        return self._pace

    def held(self, session: KeptSession) -> HeldBy | None:
        return self._held(session, self._live()) if session.waiting else None

    def usable(self, session: KeptSession, now: datetime) -> bool:
        """It waits, with a valid permit."""
        if not session.waiting or not session.runs:
            return False
        return session.permits[session.runs[-1].run].usable(self.bar_of(session).revision, now)

    def next(self, now: datetime) -> KeptSession | None:
        """Who may be claimed: of the Graph with the fewest live runs, the oldest."""
        live = self._live()
        free = [s for s in self._sessions.values() if self.usable(s, now) and self._held(s, live) is None]
        return min(free, key=lambda s: (live.graphs[s.offer.graph_uid], s.position), default=None)

    def outstanding(self, graph_uid: str, now: datetime) -> Outstanding:
        ready = [session for session in self._sessions.values() if self.usable(session, now)]
        of_graph = sum(session.offer.graph_uid == graph_uid for session in ready)
        return Outstanding(len(ready), of_graph + self._live().graphs[graph_uid])

    def want_ahead(self, ahead: int, now: datetime, *, taken: bool) -> bool:
        """Mark as many sessions as wanted as are lacking to ``ahead``, in turn of their Graphs; when one was taken, at
        least one of a Graph that has nothing yet. Whether any was marked."""
        live = self._live()
        waiting = [s for s in self._sessions.values() if s.waiting and self._held(s, live) is None]
        coming = {s.position for s in waiting if self.usable(s, now) or s.asked_lately(now)}
        turn = live.graphs + Counter(s.offer.graph_uid for s in waiting if s.position in coming)
        lacking = []
        for session in waiting:  # oldest first
            if session.position not in coming and not session.wanted:
                turn[session.offer.graph_uid] += 1
                lacking.append((turn[session.offer.graph_uid], session.position, session))
        newcomer = taken and any(number == 1 for number, _, _ in lacking)
        marked = sorted(lacking, key=lambda item: item[:2])[: max(ahead - len(coming), int(newcomer))]
        for _, _, session in marked:
            session.want(now)
        return bool(marked)

    def _live(self) -> _Live:
        offers = [session.offer for session in self._sessions.values() if session.live]
        agents = Counter(offer.agent_uid for offer in offers)
        agents[""] = len(offers)
        return _Live(agents, Counter(offer.graph_uid for offer in offers))

    def _held(self, session: KeptSession, live: _Live) -> HeldBy | None:
        agent = session.offer.agent_uid
        limit, _ = self._limits.get(agent, (None, None))
        of_all, _ = self._limits.get("", (None, None))
        return held_by(live.agents[agent], limit, live.agents[""], of_all)


def open_ones(sessions: Iterable[KeptSession], task_uid: str | None) -> list[OpenSession]:
    """Those neither revoked nor closed, of one Task or all."""
    return [
        session.opened()
        for session in sessions
        if session.revoked is None and not session.closed and task_uid in (None, session.offer.task_uid)
    ]
