"""Leases: silence for the whole lease is a loss; silence of the observer or of the store is not."""

from collections.abc import Sequence

import pytest

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.domain.session import EMPTY_OBJECT_DIGEST, LiveRun, Offer, Permit, RunState
from triplane.errors import Unavailable
from triplane.operator.leases import Lease, LeaseObserver, LeaseTimers

LEASE = 15.0
GAP = 7.0


def observe(timers: LeaseTimers, times: Sequence[float], counter: int = 1) -> list[Lease]:
    expired: list[Lease] = []
    for now in times:
        expired = timers.observe([Lease("s", 1, counter)], now)
    return expired


def test_a_counter_that_stands_still_for_the_lease_expires() -> None:
    timers = LeaseTimers(LEASE, GAP)
    assert observe(timers, [0, 2, 4, 6, 8, 10, 12, 14]) == []
    assert observe(timers, [15]) == [Lease("s", 1, 1)]


def test_progress_starts_the_lease_anew() -> None:
    timers = LeaseTimers(LEASE, GAP)
    observe(timers, [0, 5, 10, 14], counter=1)
    assert observe(timers, [16, 20, 25, 30], counter=2) == []
    assert observe(timers, [31], counter=2) == [Lease("s", 1, 2)]


def test_another_run_of_the_session_has_a_lease_of_its_own() -> None:
    timers = LeaseTimers(LEASE, GAP)
    observe(timers, [0, 5, 10, 14])
    assert timers.observe([Lease("s", 2, 1)], 16) == []


def test_an_observer_that_was_paused_blames_nobody() -> None:
    timers = LeaseTimers(LEASE, GAP)
    observe(timers, [0, 2])
    assert observe(timers, [500]) == []
    assert observe(timers, [505, 510]) == []
    assert observe(timers, [515]) == [Lease("s", 1, 1)]


def test_a_store_that_was_away_gives_everybody_a_full_lease() -> None:
    timers = LeaseTimers(LEASE, GAP)
    observe(timers, [0, 5, 10, 14])
    timers.reset()
    assert observe(timers, [15, 20, 25, 29]) == []
    assert observe(timers, [30]) == [Lease("s", 1, 1)]


def test_an_expired_lease_is_named_until_it_is_gone() -> None:
    timers = LeaseTimers(LEASE, GAP)
    observe(timers, [0, 5, 10])
    assert observe(timers, [15]) != []
    assert observe(timers, [17]) != []
    assert timers.observe([], 19) == []


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


class Flaky:
    """A store that is away while told so, in front of a real one."""

    def __init__(self, store: MemorySessionStore) -> None:
        self.store = store
        self.away = False

    async def live(self) -> list[LiveRun]:
        if self.away:
            raise Unavailable("the store is away")
        return await self.store.live()

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        return await self.store.lose(session_uid, run, counter=counter, reason=reason)


@pytest.fixture
async def store() -> MemorySessionStore:
    store = MemorySessionStore(SystemClock())
    await store.offer(Offer("s1", "team", "sess", "t1", "g1", "a1", "agent", "Producer", EMPTY_OBJECT_DIGEST, {}))
    await store.permit(Permit("s1", 1, 1, EMPTY_OBJECT_DIGEST, await store.revocation_revision()))
    assert await store.claim("runner", "one") is not None
    return store


async def test_a_silent_runner_loses_its_run_and_the_session_is_told(store: MemorySessionStore) -> None:
    clock, told = FakeClock(), list[str]()
    observer = LeaseObserver(store, clock, lambda run: told.append(run.name), lease_seconds=LEASE)  # type: ignore[arg-type]
    for _ in range(9):
        await observer.observe()
        clock.time += 2
    view = await store.get("s1")
    assert view is not None
    assert view.last_run is not None
    assert view.last_run.state is RunState.LOST
    assert told == ["sess"]


async def test_a_renewing_runner_keeps_its_run(store: MemorySessionStore) -> None:
    clock = FakeClock()
    observer = LeaseObserver(store, clock, lambda view: None, lease_seconds=LEASE)  # type: ignore[arg-type]
    for counter in range(1, 30):
        await store.renew("s1", 1, counter)
        await observer.observe()
        clock.time += 5
    assert [run.session_uid for run in await store.live()] == ["s1"]


async def test_a_closed_path_to_the_store_stops_the_timers(store: MemorySessionStore) -> None:
    clock, reachable = FakeClock(), False

    async def path_open() -> bool:
        return reachable

    observer = LeaseObserver(
        store,
        clock,  # type: ignore[arg-type]
        lambda view: None,
        lease_seconds=LEASE,
        path_open=path_open,
    )
    for _ in range(20):
        await observer.observe()
        clock.time += 5
    assert await store.live()
    reachable = True
    for _ in range(4):
        await observer.observe()
        clock.time += 5
    assert not await store.live()


async def test_an_outage_of_the_store_costs_no_run(store: MemorySessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    clock, flaky = FakeClock(), Flaky(store)
    naps = 0

    async def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        clock.time += seconds
        flaky.away = 5 <= naps < 60
        if naps == 64:
            raise asyncio.CancelledError

    monkeypatch.setattr("triplane.operator.leases.asyncio.sleep", nap)
    observer = LeaseObserver(flaky, clock, lambda view: None, lease_seconds=LEASE)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await observer.run()
    assert await store.live(), "128 s of silence, but never a lease of it observed"
