"""Keys that want to be worked on some time: each once, at its time, with one timer for all."""

import asyncio
import random

from triplane.operator.later import SLACK, Later


class Rung:
    """What rang, in order."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.later: Later[str] = Later(self.keys.append)

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            while len(self.keys) < count:
                await asyncio.sleep(0.002)
        return self.keys


async def test_keys_ring_once_in_the_order_of_their_times() -> None:
    it = Rung()
    for key, delay in (("c", 0.06), ("a", 0.02), ("b", 0.04)):
        it.later.add(key, delay)
    assert "a" in it.later
    assert await it.until(3) == ["a", "b", "c"]
    assert len(it.later) == 0
    await asyncio.sleep(0.05)
    assert it.keys == ["a", "b", "c"]


async def test_the_earlier_wish_of_a_key_stands() -> None:
    it = Rung()
    it.later.add("a", 0.02)
    it.later.add("a", 5.0)
    it.later.add("b", 5.0)
    it.later.add("b", 0.01)
    assert await it.until(2) == ["b", "a"]
    assert len(it.later) == 0


async def test_a_wish_taken_back_does_not_ring_and_can_be_made_again() -> None:
    it = Rung()
    it.later.add("a", 0.01)
    it.later.add("b", 0.03)
    it.later.discard("a")
    it.later.discard("unknown")
    assert await it.until(1) == ["b"]
    it.later.add("a", 0.01)
    assert await it.until(2) == ["b", "a"]


async def test_nothing_rings_after_everything_was_taken_back() -> None:
    it = Rung()
    for number in range(10):
        it.later.add(str(number), 0.01)
    it.later.clear()
    await asyncio.sleep(0.05)
    assert it.keys == []


async def test_memory_follows_the_keys_not_the_wishes() -> None:
    it, rng = Rung(), random.Random(7)
    for _ in range(50_000):
        key = str(rng.randrange(50))
        it.later.discard(key)
        it.later.add(key, rng.uniform(100, 200))
    assert len(it.later) == 50
    assert len(it.later._heap) <= 2 * 50 + SLACK + 1
    it.later.clear()


async def test_ten_thousand_keys_need_one_timer() -> None:
    it = Rung()
    for number in range(10_000):
        it.later.add(str(number), 3600 + number / 1000)
    scheduled = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert len(scheduled) <= 2
    it.later.clear()
