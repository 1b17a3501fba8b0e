"""Records arrive once, in order, in segments of a bounded size, however slow the gateway is."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from triplane.session import journal
from triplane.session.client import RunEnded
from triplane.session.harness.protocol import Record, printed
from triplane.session.journal import Journal


class Receiver:
    """Takes segments as the gateway's ``records`` call does; may be closed for a while."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, list[Mapping[str, Any]]]] = []
        self.held: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def record(self, sequence: int, records: Sequence[Mapping[str, Any]], held_seconds: float = 0.0) -> None:
        await self.open.wait()
        self.segments.append((sequence, list(records)))
        self.held.append(held_seconds)

    def texts(self) -> list[str]:
        return [record["payload"]["text"] for _, records in self.segments for record in records]


def _journal(receiver: Any, **options: Any) -> Journal:
    return Journal(receiver, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), **options)


async def test_records_go_out_in_order_in_one_segment() -> None:
    receiver = Receiver()
    written = _journal(receiver)
    sending = asyncio.create_task(written.run())
    for number in range(10):
        await written.add(printed("stdout", str(number)))
    await written.close()
    await sending

    assert [sequence for sequence, _ in receiver.segments] == [1]
    assert receiver.texts() == [str(number) for number in range(10)]
    assert receiver.segments[0][1][0] == {
        "type": "message",
        "occurredAt": "2026-01-02T03:04:05.678Z",
        "payload": {"stream": "stdout", "text": "0"},
    }


async def test_a_segment_goes_out_a_second_after_its_first_record() -> None:
    receiver = Receiver()
    written = _journal(receiver)
    sending = asyncio.create_task(written.run())
    await written.add(printed("stdout", "early"))
    await asyncio.sleep(0.4)
    assert receiver.segments == []
    await asyncio.sleep(1.2)
    assert receiver.texts() == ["early"]
    await written.add(printed("stdout", "late"))
    await written.close()
    await sending
    first, second = receiver.held
    assert 1.0 <= first < 1.6, "it is told how long ago the first record was heard"
    assert second == 0.0


async def test_64_kib_go_out_at_once() -> None:
    receiver = Receiver()
    written = _journal(receiver)
    sending = asyncio.create_task(written.run())
    began = asyncio.get_running_loop().time()
    await written.add(printed("stdout", "x" * 70_000))
    while not receiver.segments:
        await asyncio.sleep(0.005)
    assert asyncio.get_running_loop().time() - began < 0.9
    await written.close()
    await sending


async def test_while_the_gateway_is_away_records_wait_and_then_the_writer_waits() -> None:
    receiver = Receiver()
    receiver.open.clear()
    written = _journal(receiver)
    sending = asyncio.create_task(written.run())

    async def write() -> None:
        for number in range(120):
            await written.add(printed("stdout", f"{number:04d}" + "x" * 60_000))
        await written.close()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    assert not writing.done(), "7 MB do not fit in what may wait"
    receiver.open.set()
    await writing
    await sending

    assert [text[:4] for text in receiver.texts()] == [f"{number:04d}" for number in range(120)]
    assert [sequence for sequence, _ in receiver.segments] == list(range(1, len(receiver.segments) + 1))
    assert all(len(records) <= 5 for _, records in receiver.segments), "segments stay below 256 KiB"


async def test_many_small_records_are_split_by_number() -> None:
    receiver = Receiver()
    written = _journal(receiver)
    for number in range(1200):
        await written.add(Record("activity", {"message": str(number)}))
    await written.close()
    await written.run()

    assert [len(records) for _, records in receiver.segments] == [500, 500, 200]


async def test_a_journal_without_end_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_TOTAL", 1000)
    receiver = Receiver()
    written = _journal(receiver)
    for number in range(100):
        await written.add(printed("stdout", str(number)))
    await written.close()
    await written.run()

    *kept, last = receiver.texts()
    assert kept == [str(number) for number in range(len(kept))]
    assert 5 < len(kept) < 20
    assert "dropped" in last


async def test_secrets_are_replaced_wherever_they_stand() -> None:
    receiver = Receiver()
    written = _journal(receiver, secrets=("s3cret", ""))
    await written.add(printed("stdout", "a s3cret b s3cret"))
    await written.close()
    await written.run()

    assert receiver.texts() == ["a [redacted] b [redacted]"]


async def test_the_end_of_the_run_ends_the_journal() -> None:
    class Ended:
        async def record(self, sequence: int, records: Sequence[Mapping[str, Any]], held_seconds: float = 0.0) -> None:
            raise RunEnded("over")

    written = _journal(Ended())
    await written.add(printed("stdout", "x"))
    await written.close()
    with pytest.raises(RunEnded):
        await written.run()
