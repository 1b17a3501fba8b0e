"""The line before the workers: new work first, old work never for ever last."""

import asyncio

from triplane.operator.line import BEHIND_EVERY, Line


async def test_first_come_first_served() -> None:
    line: Line[str] = Line()
    for key in "abc":
        line.put(key)
    assert [await line.get() for _ in range(3)] == ["a", "b", "c"]


async def test_what_can_wait_stands_behind_but_is_not_starved() -> None:
    line: Line[str] = Line()
    for number in range(40):
        line.put(f"old-{number:02}", behind=True)
    for number in range(40):
        line.put(f"new-{number:02}")
    order = [await line.get() for _ in range(80)]
    assert order[: BEHIND_EVERY - 1] == [f"new-{number:02}" for number in range(BEHIND_EVERY - 1)]
    assert sum(key.startswith("old") for key in order[:32]) == 32 // BEHIND_EVERY
    assert sorted(order) == sorted({*order}), "each once"


async def test_a_key_that_becomes_urgent_leaves_the_lane_behind() -> None:
    line: Line[str] = Line()
    for key in ("old-1", "old-2"):
        line.put(key, behind=True)
    line.promote("old-2")
    line.promote("unknown")
    assert [await line.get(), await line.get()] == ["old-2", "old-1"]
    assert len(line) == 0


async def test_who_waits_for_a_key_gets_the_next_one_also_after_a_clearance() -> None:
    line: Line[str] = Line()
    line.put("gone")
    assert line.clear() == ["gone"]
    getting = asyncio.create_task(line.get())
    await asyncio.sleep(0.01)
    assert not getting.done()
    line.put("a", behind=True)
    assert await getting == "a"


async def test_the_age_is_that_of_the_first_in_either_lane() -> None:
    line: Line[str] = Line()
    assert line.oldest_seconds == 0
    line.put("old", behind=True)
    await asyncio.sleep(0.03)
    line.put("new")
    assert line.oldest_seconds >= 0.03
    line.promote("old")
    assert line.oldest_seconds < 0.03
