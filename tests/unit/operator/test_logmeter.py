"""How far behind the log the operator is, and what its appends take."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.meteredlog import MeteredLog
from triplane.audit.model import EventBody, EventFilter, EventSubject, Recorded
from triplane.errors import IdReused
from triplane.operator.logmeter import LogMeter

UID = "11111111-1111-4111-8111-111111111111"


class Clock:
    """Stands at a minute from now."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=1)

    def monotonic(self) -> float:
        return 0.0


def entry(kind: str, run: int) -> EventBody:
    subject = EventSubject("AgentSession", "team", "s", UID, 1)
    return EventBody(f"{kind}/{UID}/{run}", kind, f"graph/{UID}", "system", subject)


async def test_only_what_must_be_acted_on_counts_and_only_until_it_was_seen() -> None:
    log = MemoryEventLog(MemoryLog.create(), writer="gateway")
    meter = LogMeter(log, Clock())
    await meter.look(-1)
    assert (meter.entries, meter.seconds) == (0, 0.0)
    receipts = []
    for run in range(1, 4):
        receipts += await log.append([entry("run.claimed", run), entry("run.recorded", run)])
    claimed = [receipt.seq for receipt in receipts[::2]]
    await meter.look(-1)
    assert meter.entries == 3
    assert meter.seconds == pytest.approx(60, abs=5)
    await meter.look(claimed[1])
    assert meter.entries == 1
    await meter.look(claimed[2])
    assert (meter.entries, meter.seconds) == (0, 0.0)


async def test_an_entry_whose_time_is_none_is_counted_all_the_same() -> None:
    log = MemoryEventLog(MemoryLog.create(), writer="gateway")
    await log.append([entry("run.claimed", 1)])
    query = log.query

    async def altered(*args: object, **how: object) -> list[Recorded]:
        found = await query(*args, **how)  # type: ignore[arg-type]
        return [replace(each, entry={**each.entry, "time": "9999-99-99T99:99:99.999999Z"}) for each in found]

    log.query = altered  # type: ignore[method-assign, assignment]
    meter = LogMeter(log, Clock())
    await meter.look(-1)
    assert meter.entries == 1


async def test_entries_of_no_concern_are_not_read_again() -> None:
    log = MemoryEventLog(MemoryLog.create(), writer="gateway")
    meter = LogMeter(log, Clock())
    receipts = await log.append([entry("run.recorded", run) for run in range(1, 30)])
    await meter.look(-1)
    asked: list[int] = []
    query = log.query

    async def noting(where: EventFilter, *, after: int, limit: int) -> object:
        asked.append(after)
        return await query(where, after=after, limit=limit)

    log.query = noting  # type: ignore[method-assign, assignment]
    await meter.look(-1)
    assert asked == []
    await log.append([entry("run.claimed", 1)])
    await meter.look(-1)
    assert (meter.entries, asked) == (1, [receipts[-1].seq])


async def test_appends_are_timed_also_those_that_fail_and_everything_else_passes_through() -> None:
    seconds: list[float] = []
    log = MeteredLog(MemoryEventLog(MemoryLog.create(), writer="gateway"), seconds.append)
    (receipt,) = await log.append([entry("run.claimed", 1)])
    recorded = await log.get(f"run.claimed/{UID}/1")
    assert recorded is not None
    assert recorded.seq == receipt.seq
    assert list(await log.get_many([f"run.claimed/{UID}/1"])) == [f"run.claimed/{UID}/1"]
    claims = EventFilter(types=frozenset({"run.claimed"}))
    assert [found.seq for found in await log.query(claims)] == [receipt.seq]
    assert (await log.head())[0] == receipt.seq + 1
    streamed = await anext(aiter(log.stream(claims)))
    assert streamed.seq == receipt.seq
    assert log.origin
    other = EventBody(f"run.claimed/{UID}/1", "run.claimed", "system", "system", entry("run.claimed", 1).subject)
    with pytest.raises(IdReused):
        await log.append([other])
    assert len(seconds) == 2
    assert all(each >= 0 for each in seconds)
