"""Who gets checkpoints, when, and what becomes of those who fail."""

import asyncio

import pytest
from tests.unit.controllers.notary_world import NotaryWorld, size_of

from triplane.adapters.memory.notary import MemoryAnchor
from triplane.domain.continuity import Standing
from triplane.domain.notary import BACKOFF_SECONDS, Delivery, due_at
from triplane.errors import Forbidden, Unavailable


@pytest.fixture
def world() -> NotaryWorld:
    return NotaryWorld.in_memory()


@pytest.mark.parametrize(
    ("delivery", "every", "due"),
    [
        pytest.param(Delivery(), 60.0, float("-inf"), id="never given one: at once"),
        pytest.param(Delivery(7, 100.0), 60.0, None, id="it has this one: never"),
        pytest.param(Delivery(5, 100.0), 60.0, 160.0, id="it has an older one: when its minute is over"),
        pytest.param(Delivery(5, 100.0), 0.0, 100.0, id="a quick place: at once"),
        pytest.param(Delivery(5, 100.0, 1, 130.0), 0.0, 135.0, id="it failed: after a pause"),
        pytest.param(Delivery(5, 100.0, 9, 130.0), 0.0, 430.0, id="it keeps failing: after the longest pause"),
        pytest.param(Delivery(5, 100.0, 1, 130.0), 60.0, 160.0, id="it failed within its minute: when that is over"),
    ],
)
def test_when_a_place_is_due(delivery: Delivery, every: float, due: float | None) -> None:
    assert due_at(delivery, 7, every) == due


async def test_a_slow_place_gets_the_newest_checkpoint_once_a_minute_and_none_while_idle(world: NotaryWorld) -> None:
    slow = MemoryAnchor(every_seconds=60.0)
    world.anchors = [slow]
    notary = await world.begun()
    for size in range(3, 13):  # ten checkpoints, six seconds apart
        await world.grow(size)
        await world.signed(notary)
        world.clock.seconds += 6
    assert [size_of(note) for note in slow.written] == [3]
    world.clock.seconds += 1
    await notary.distribution.deliver()
    assert [size_of(note) for note in slow.written] == [3, 12]
    for _ in range(5):
        world.clock.seconds += 600
        await world.signed(notary)
    assert [size_of(note) for note in slow.written] == [3, 12], "nothing is written while the log stands still"


@pytest.mark.parametrize("trouble", [Unavailable("away"), Forbidden("not you")], ids=["away", "forbidden"])
async def test_a_place_that_fails_is_tried_again_later_and_harms_no_other(
    world: NotaryWorld, trouble: Exception
) -> None:
    bad, good = MemoryAnchor("memory:bad"), MemoryAnchor("memory:good")
    world.anchors = [bad, good]
    bad.trouble = trouble
    notary = await world.begun()
    await world.signed(notary)
    await world.signed(notary)
    first, second = notary.distribution.anchored
    assert (first.failures, second.failures, size_of(good.note)) == (1, 0, 2)
    assert (str(trouble) in first.problem, first.standing) == (True, Standing.UNREACHABLE)
    bad.trouble = None
    world.clock.seconds += BACKOFF_SECONDS[0] + 0.1
    await notary.distribution.deliver()
    assert (first.problem, first.standing, size_of(bad.note)) == ("", Standing.ABSENT, 2)


async def test_a_place_that_only_takes_is_given_checkpoints_and_never_read(world: NotaryWorld) -> None:
    post = MemoryAnchor(readable=False)
    world.anchors = [post]
    notary = await world.begun()
    await world.signed(notary)
    await world.grow(5)
    await world.signed(notary)
    assert [size_of(note) for note in post.written] == [2, 5]
    assert notary.distribution.anchored[0].standing is Standing.WRITE_ONLY


async def test_a_place_that_never_answers_is_given_up_for_now(
    world: NotaryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(MemoryAnchor):
        async def read(self) -> bytes | None:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("triplane.controllers.continuity.READ_SECONDS", 0.05)
    world.anchors = [Silent()]
    notary = await world.begun()
    await world.signed(notary)
    assert "no answer within" in notary.distribution.anchored[0].problem
    assert (await world.published()).size == 2


async def test_run_wakes_for_a_place_that_becomes_due(world: NotaryWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplane.domain.notary.BACKOFF_SECONDS", (0.01,))

    class Reviving(MemoryAnchor):
        tries = 0

        async def write(self, note: bytes) -> None:
            self.tries += 1
            if self.tries < 3:
                raise Unavailable("away")
            await super().write(note)

    class Passing:
        """Time goes by itself."""

        def now(self):  # type: ignore[no-untyped-def]
            return world.clock.now()

        def monotonic(self) -> float:
            return asyncio.get_running_loop().time()

    anchor = Reviving()
    world.anchors = [anchor]
    notary = await world.begun()
    notary.distribution._clock = Passing()
    await notary.sign()
    running = asyncio.create_task(notary.distribution.run())
    async with asyncio.timeout(60):
        while anchor.note is None:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert anchor.tries == 3
