"""The lease observer: a run whose renewal counter stands still is lost, unless the fault may be ours.

The observer measures with its own monotonic clock, from its own observations alone. When the store was away,
or the observer itself was paused (SIGSTOP, a suspended machine), every timer starts anew: nobody could have
renewed, or nobody could have looked, and neither is the runner's fault. Wall-clock jumps do not enter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from triplane.domain.session import LiveRun
from triplane.errors import Fenced, TriplaneError
from triplane.ports import Clock, SessionStore

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
GAP_POLLS = 3
"""An observation this many polls late means that we were away."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One live run's renewal counter, as read."""

    session_uid: str
    run: int
    counter: int


class LeaseTimers:
    """Which leases have made no progress for too long. Pure: the observer passes its monotonic time in."""

    def __init__(self, lease_seconds: float, gap_seconds: float) -> None:
        self._lease = lease_seconds
        self._gap = gap_seconds
        self._since: dict[Lease, float] = {}
        self._observed: float | None = None

    def reset(self) -> None:
        """The store was unreachable: what is known of progress is void."""
        self._since.clear()
        self._observed = None

    def observe(self, leases: Sequence[Lease], now: float) -> list[Lease]:
        """Take in the live leases as read at ``now`` (monotonic seconds); returns the expired ones."""
        if self._observed is not None and now - self._observed > self._gap:
            self._since.clear()
        self._observed = now
        # Keyed with the counter: progress makes a new key, whose time starts now.
        self._since = {lease: self._since.get(lease, now) for lease in leases}
        return [lease for lease, since in self._since.items() if now - since >= self._lease]


def leases_of(runs: Sequence[LiveRun]) -> list[Lease]:
    """The renewal counters of the live runs."""
    return [Lease(run.session_uid, run.run, run.counter) for run in runs]


class LeaseObserver:
    """Declares runs lost whose runner is gone, and says so to whom it concerns."""

    def __init__(
        self,
        sessions: SessionStore,
        clock: Clock,
        on_lost: Callable[[LiveRun], None],
        *,
        lease_seconds: float,
        path_open: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """``path_open`` tells whether runners can reach the store at all (the gateway answers): while it is
        False no timer runs."""
        self._sessions = sessions
        self._clock = clock
        self._on_lost = on_lost
        self._path_open = path_open
        self._lease_seconds = lease_seconds
        self._timers = LeaseTimers(lease_seconds, max(GAP_POLLS * POLL_SECONDS, lease_seconds / 2))

    async def run(self) -> None:
        """Observe until cancelled."""
        while True:
            try:
                await self.observe()
            except Fenced:
                raise
            except TriplaneError as error:
                self._timers.reset()
                log.warning("leases cannot be observed; all timers start anew", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def observe(self) -> None:
        """One look at the store. Raises what the store raises, after which the timers must be reset."""
        runs = {run.session_uid: run for run in await self._sessions.live()}
        if runs and self._path_open is not None and not await self._path_open():
            self._timers.reset()
            return
        # The time is read after the answer: a slow answer must not make a lease look older than it is.
        for lease in self._timers.observe(leases_of(list(runs.values())), self._clock.monotonic()):
            lost = await self._sessions.lose(
                lease.session_uid,
                lease.run,
                counter=lease.counter,
                reason=f"LeaseExpired: no renewal for {self._lease_seconds:g} s",
            )
            log.warning("lease expired", session=lease.session_uid, run=lease.run, lost=lost)
            self._on_lost(runs[lease.session_uid])
