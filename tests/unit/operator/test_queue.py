"""The work queue: once in line, once at work, nothing missed, failures spread out."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.errors import Conflict, Fenced, Unavailable
from triplane.operator.later import Later
from triplane.operator.queue import OUTAGE_CAP, Backoff, WorkQueue

FAST = Backoff(base=0.005, cap=0.02)


@asynccontextmanager
async def running(queue: WorkQueue[str]) -> AsyncIterator[WorkQueue[str]]:
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_key_added_many_times_before_its_turn_is_done_once() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        done.append(key)

    queue = WorkQueue(work)
    for _ in range(100):
        queue.add("a")
    assert queue.depth == 1
    async with running(queue):
        await eventually(lambda: bool(done))
        await asyncio.sleep(0.02)
    assert done == ["a"]
    assert len(queue) == 0, "an idle key must cost nothing"


async def test_a_key_is_never_worked_on_twice_at_once_and_no_wish_is_lost() -> None:
    active: Counter[str] = Counter()
    seen: dict[str, int] = {}
    truth: dict[str, int] = {}

    async def work(key: str) -> None:
        active[key] += 1
        assert active[key] == 1
        seen[key] = truth[key]
        await asyncio.sleep(random.uniform(0, 0.002))
        active[key] -= 1

    queue = WorkQueue(work, workers=4)
    async with running(queue):
        for number in range(500):
            key = f"k{number % 7}"
            truth[key] = number
            queue.add(key)
            if number % 5 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: seen == truth)


async def test_a_key_added_while_at_work_is_done_again() -> None:
    gate, started, runs = asyncio.Event(), asyncio.Event(), 0

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1
        started.set()
        await gate.wait()

    async with running(WorkQueue(work)) as queue:
        queue.add("a")
        await started.wait()
        queue.add("a")
        queue.add("a")
        gate.set()
        await eventually(lambda: runs == 2)
        await asyncio.sleep(0.02)
    assert runs == 2


async def test_a_slow_key_does_not_hold_up_others() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        if key == "slow":
            await asyncio.sleep(60)
        done.append(key)

    async with running(WorkQueue(work, workers=2)) as queue:
        queue.add("slow")
        for name in ("a", "b", "c"):
            queue.add(name)
        await eventually(lambda: done == ["a", "b", "c"])


async def test_work_that_asks_to_be_called_again_is_called_again() -> None:
    runs = 0

    async def work(key: str) -> float | None:
        nonlocal runs
        runs += 1
        return 0.01 if runs < 3 else None

    async with running(WorkQueue(work)) as queue:
        queue.add("a")
        await eventually(lambda: runs == 3)
        await asyncio.sleep(0.05)
    assert runs == 3


async def test_an_event_does_not_wait_for_a_planned_call() -> None:
    runs = 0

    async def work(key: str) -> float:
        nonlocal runs
        runs += 1
        return 3600

    async with running(WorkQueue(work)) as queue:
        queue.add("a")
        await eventually(lambda: runs == 1)
        queue.add("a", 1800)
        queue.add("a")
        await eventually(lambda: runs == 2)


async def test_the_earlier_of_two_delays_stands() -> None:
    runs = 0

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1

    async with running(WorkQueue(work)) as queue:
        queue.add("a", 0.01)
        queue.add("a", 3600)
        await eventually(lambda: runs == 1)


@pytest.mark.parametrize(
    "error",
    [Unavailable("away"), Conflict("raced"), TimeoutError(), ZeroDivisionError()],
    ids=["an outage is retried", "a lost race is retried", "a time-out is retried", "a defect is retried"],
)
async def test_failures_are_retried_until_they_end(error: Exception) -> None:
    runs = 0

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise error

    async with running(WorkQueue(work, backoff=FAST)) as queue:
        queue.add("a")
        await eventually(lambda: runs == 4)
        await eventually(lambda: len(queue) == 0)
    assert queue.counters.failed == 3
    assert queue.counters.processed == 1


async def test_work_that_hangs_is_ended_and_retried() -> None:
    runs = 0

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            await asyncio.sleep(3600)

    async with running(WorkQueue(work, backoff=FAST, timeout_seconds=0.02)) as queue:
        queue.add("a")
        await eventually(lambda: runs == 2)


async def test_a_fenced_writer_stops_everything() -> None:
    async def work(key: str) -> None:
        raise Fenced("epoch 2 has begun")

    queue = WorkQueue(work)
    queue.add("a")
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(queue.run(), 5)
    assert caught.group_contains(Fenced)


async def test_forget_drops_failures_and_plans() -> None:
    runs = 0

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1
        raise Unavailable("away")

    async with running(WorkQueue(work, backoff=Backoff(base=0.05, jitter=0))) as queue:
        queue.add("a")
        await eventually(lambda: queue.failures("a") == 1)
        queue.forget("a")
        assert len(queue) == 0
        await asyncio.sleep(0.1)
    assert runs == 1


async def test_a_full_queue_refuses_and_says_so() -> None:
    async def work(key: str) -> None: ...

    queue = WorkQueue(work, limit=2)
    for name in ("a", "b", "c", "a"):
        queue.add(name)
    assert queue.overflowed
    assert queue.counters.overflowed == 1
    assert queue.depth == 2


async def test_draining_waits_for_what_is_at_work_and_starts_nothing_more() -> None:
    gate, done = asyncio.Event(), []

    async def work(key: str) -> float:
        await gate.wait()
        done.append(key)
        return 0.001

    async with running(WorkQueue(work, workers=1)) as queue:
        queue.add("a")
        queue.add("b")
        await eventually(lambda: queue.running == 1)
        assert not await queue.drain(0.02)
        gate.set()
        assert await queue.drain(5)
        queue.add("c")
        await asyncio.sleep(0.02)
    assert done == ["a"]


@given(st.integers(1, 500), st.integers())
def test_backoff_grows_to_its_cap_and_stays_within_its_jitter(failures: int, seed: int) -> None:
    backoff = Backoff(base=0.2, cap=30, jitter=0.2)
    delay = backoff.delay(failures, random.Random(seed))
    nominal = min(30, 0.2 * 2 ** min(failures - 1, 60))
    assert nominal * 0.8 <= delay <= nominal * 1.2


async def test_the_return_of_a_backend_is_noticed_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    original: Callable[..., None] = Later.add

    def note(self: Later[str], key: str, delay: float) -> None:
        delays.append(delay)
        original(self, key, 0.0001)

    monkeypatch.setattr(Later, "add", note)

    async def work(key: str) -> None:
        raise Unavailable("away")

    async with running(WorkQueue(work)) as queue:
        queue.add("a")
        await eventually(lambda: len(delays) > 12)
    assert max(delays) == OUTAGE_CAP
