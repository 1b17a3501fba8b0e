"""Lanes that write and hash: in order, bounded, and waited for however it ends."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from triplane.adapters.filesystem.filling import DEPTH, WRITE_SIZE, fill
from triplane.errors import TooLarge


class Blob:
    """Counts what it is given; ``gate`` holds the writing back, ``limit`` ends it."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.written: list[bytes] = []
        self.hashed: list[bytes] = []
        self.at_work = 0
        self._limit = limit

    def write(self, chunks: Sequence[bytes]) -> None:
        self.at_work += 1
        try:
            assert self.gate.wait(20)
            self.written += chunks
            if sum(map(len, self.written)) > self._limit:
                raise TooLarge("too large")
        finally:
            self.at_work -= 1

    def hash(self, chunks: Sequence[bytes]) -> None:
        self.hashed += chunks


class Source:
    """Hands as large as are gathered, each telling its number."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.read = 0
        self._count, self._error = count, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.read < self._count:
            self.read += 1
            yield self.read.to_bytes(4) * (WRITE_SIZE // 4)
        if self._error is not None:
            raise self._error

    def all(self) -> list[bytes]:
        return [number.to_bytes(4) * (WRITE_SIZE // 4) for number in range(1, self._count + 1)]


async def filled(blob: Blob, source: Source) -> None:
    """A ``Blob`` has what ``fill`` uses of a ``TemporaryBlob``, and no file."""
    await fill(blob, source)  # type: ignore[arg-type]


async def test_both_lanes_get_everything_in_order() -> None:
    blob, source = Blob(), Source(40)
    await filled(blob, source)
    assert blob.written == blob.hashed == source.all()


async def test_a_disk_that_does_not_keep_up_holds_the_source_back() -> None:
    blob, source = Blob(), Source(100)
    blob.gate.clear()
    filling = asyncio.create_task(filled(blob, source))
    while source.read < DEPTH + 1:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert source.read == DEPTH + 1
    blob.gate.set()
    await filling
    assert blob.written == source.all()


async def test_a_write_that_fails_ends_it_and_the_source_is_read_no_further() -> None:
    blob, source = Blob(limit=3 * WRITE_SIZE), Source(1000)
    with pytest.raises(TooLarge):
        await filled(blob, source)
    assert source.read <= 3 + 2 * DEPTH
    assert blob.at_work == 0


@pytest.mark.parametrize("how", ["the source fails", "the caller gives up"])
async def test_what_is_under_way_is_waited_for(how: str) -> None:
    blob = Blob()
    blob.gate.clear()
    source = Source(2, OSError("gone")) if how == "the source fails" else Source(100)
    filling = asyncio.create_task(filled(blob, source))
    while blob.at_work == 0 or source.read < 2:
        await asyncio.sleep(0.01)
    if how == "the caller gives up":
        filling.cancel()
    await asyncio.sleep(0.1)
    assert not filling.done()
    blob.gate.set()
    with pytest.raises((OSError, asyncio.CancelledError)):
        await filling
    assert blob.at_work == 0
    assert len(blob.written) <= 1, "what only waited is forgotten"
