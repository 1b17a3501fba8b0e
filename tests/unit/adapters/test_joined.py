"""A joined read never answers with what was read before it was asked for."""

import asyncio
from collections import defaultdict

import pytest

from triplane.adapters.joined import Joined
from triplane.errors import Unavailable


class World:
    """Something to read: each read takes until it is let go, and answers what held when it began."""

    def __init__(self) -> None:
        self.now = 0
        self.reads: dict[str, int] = defaultdict(int)
        self.gate = asyncio.Event()
        self.joined = Joined(self.read)

    async def read(self, key: str) -> int:
        self.reads[key] += 1
        seen = self.now
        await self.gate.wait()
        if seen < 0:
            raise Unavailable("nothing to read")
        return seen

    def ask(self, key: str = "a") -> "asyncio.Task[int]":
        return asyncio.create_task(self.joined(key))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_those_who_ask_at_once_share_one_read() -> None:
    world = World()
    asked = [world.ask() for _ in range(5)]
    world.gate.set()
    assert await asyncio.gather(*asked) == [0] * 5
    assert world.reads["a"] == 1


async def test_who_asks_while_a_read_is_under_way_gets_a_later_one() -> None:
    world = World()
    first = world.ask()
    await turns()
    world.now = 1
    later = [world.ask() for _ in range(3)]
    await turns()
    assert world.reads["a"] == 1
    world.gate.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 3
    assert world.reads["a"] == 2


async def test_keys_do_not_wait_for_each_other() -> None:
    world = World()
    asked = [world.ask("a"), world.ask("b")]
    await turns()
    assert dict(world.reads) == {"a": 1, "b": 1}
    world.gate.set()
    await asyncio.gather(*asked)


async def test_a_failure_reaches_all_who_shared_it_and_nobody_after() -> None:
    world = World()
    world.now = -1
    asked = [world.ask() for _ in range(2)]
    world.gate.set()
    assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [Unavailable] * 2
    world.now = 7
    assert await world.joined("a") == 7


async def test_one_who_gives_up_takes_the_answer_from_nobody() -> None:
    world = World()
    gives_up, stays = world.ask(), world.ask()
    await turns()
    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    world.gate.set()
    assert await stays == 0


async def test_nothing_is_kept_of_what_was_read() -> None:
    world = World()
    world.gate.set()
    for number in range(3):
        world.now = number
        assert await world.joined("a") == number
    await turns()
    assert not world.joined._under_way
    assert not world.joined._next
