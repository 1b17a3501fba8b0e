"""The contract of ``EventLog``: appended once, in one order, chained, streamed without loss, fenced by epochs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest

from triplane.audit.entry import event_id, parse
from triplane.audit.merkle import CompactRange, leaf_hash
from triplane.audit.model import GENESIS_PREV, EventFilter, Recorded
from triplane.conformance.logsubject import Backend, Opening, body
from triplane.errors import Fenced, IdReused, InvalidEntry, InvalidInput, NotFound, Unavailable
from triplane.ports import EventLog

EVERYTHING = EventFilter()


@pytest.fixture
async def backend(opening: Opening) -> AsyncIterator[Backend]:
    """One log, new."""
    async with opening() as made:
        yield made


@pytest.fixture
async def log(backend: Backend) -> EventLog:
    return await backend.open("one")


async def collect(log: EventLog, count: int, where: EventFilter = EVERYTHING, after: int = -1) -> list[Recorded]:
    found: list[Recorded] = []
    async with asyncio.timeout(20):
        async for recorded in log.stream(where, after=after):
            found.append(recorded)
            if len(found) == count:
                break
    return found


async def test_a_new_log_begins_with_its_origin_and_the_principal_system(log: EventLog) -> None:
    first, second = await log.query()
    host, _, install = log.origin.partition("/")
    assert (first.entry["type"], first.entry["data"]) == ("origin.created", {"host": host, "installId": install})
    assert (first.seq, first.entry["prev"]) == (0, GENESIS_PREV)
    assert (second.entry["type"], second.entry["subject"]["uid"]) == ("principal.created", "system")


async def test_appending_gives_consecutive_receipts_that_match_what_is_stored(log: EventLog) -> None:
    size, head = await log.head()
    receipts = await log.append([body(n) for n in range(5)])
    assert [receipt.seq for receipt in receipts] == list(range(size, size + 5))
    stored = await log.query(after=size - 1)
    assert [recorded.leaf_hash for recorded in stored] == [receipt.leaf_hash for receipt in receipts]
    assert [recorded.entry["time"] for recorded in stored] == [receipt.time for receipt in receipts]
    assert stored[0].entry["prev"] == head
    assert await log.head() == (size + 5, receipts[-1].leaf_hash)


async def test_what_is_stored_is_the_canonical_entry_with_every_field_of_the_body(log: EventLog) -> None:
    (receipt,) = await log.append([body(7)])
    recorded = await log.get(receipt.id)
    assert recorded is not None
    entry = parse(recorded.octets)
    assert entry == recorded.entry
    assert leaf_hash(recorded.octets).hex() == receipt.leaf_hash
    assert entry["subject"] == {
        "apiVersion": "triplane.dev/v1alpha1",
        "kind": "Task",
        "namespace": "demo",
        "name": "thing-7",
        "uid": "uid-7",
        "generation": 1,
        "labels": [["triplane.dev/graph", "g"], ["triplane.dev/node", "n"]],
    }
    given = body(7)
    assert (entry["v"], entry["origin"], entry["seq"]) == (1, log.origin, receipt.seq)
    assert (entry["id"], entry["stream"], entry["type"]) == (given.id, given.stream, given.type)
    assert (entry["actor"], entry["data"], entry["blobs"]) == (given.actor, given.data, list(given.blobs))


async def test_appending_nothing_does_nothing(log: EventLog) -> None:
    before = await log.head()
    assert await log.append([]) == []
    assert await log.head() == before


async def test_the_same_event_twice_gets_the_first_receipt(log: EventLog, backend: Backend) -> None:
    first = await log.append([body(1), body(2)])
    head = await log.head()
    assert await log.append([body(1), body(2)]) == first
    other = await backend.open("two")
    assert await other.append([body(2)]) == [first[1]]
    assert await log.head() == head


async def test_the_same_event_twice_in_one_call_is_one_entry(log: EventLog) -> None:
    size, _ = await log.head()
    first, second, third = await log.append([body(1), body(2), body(1)])
    assert first == third
    assert second.seq == first.seq + 1
    assert (await log.head())[0] == size + 2


async def test_the_same_id_with_another_body_is_refused_and_nothing_of_the_call_is_appended(log: EventLog) -> None:
    await log.append([body(1)])
    head = await log.head()
    with pytest.raises(IdReused, match=r"resource\.observed/uid-1/1"):
        await log.append([body(2), body(1, data={"count": 99}), body(3)])
    assert await log.head() == head
    assert await log.get(body(2).id) is None


async def test_the_same_id_with_two_bodies_in_one_call_is_refused(log: EventLog) -> None:
    head = await log.head()
    with pytest.raises(IdReused, match=r"resource\.observed/uid-1/1"):
        await log.append([body(1), body(1, actor="p-other")])
    assert await log.head() == head


async def test_a_refused_call_does_not_concern_the_calls_beside_it(log: EventLog) -> None:
    await log.append([body(1)])
    outcomes = await asyncio.gather(
        *(log.append([body(n), body(1, blobs=())]) if n % 3 == 0 else log.append([body(n)]) for n in range(2, 40)),
        return_exceptions=True,
    )
    for number, outcome in enumerate(outcomes, 2):
        if number % 3 == 0:
            assert isinstance(outcome, IdReused)
            assert await log.get(body(number).id) is None
        else:
            assert not isinstance(outcome, BaseException)
            assert outcome[0].id == body(number).id
    assert (await log.verify_chain()).ok


async def test_a_call_larger_than_a_batch_is_appended_whole_and_in_order(log: EventLog) -> None:
    receipts = await log.append([body(n) for n in range(600)])
    assert [receipt.id for receipt in receipts] == [body(n).id for n in range(600)]
    assert all(later.seq == earlier.seq + 1 for earlier, later in pairwise(receipts))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        pytest.param({"data": {"cost": 0.5}}, "data.cost", id="a float"),
        pytest.param({"data": {"n": 2**53}}, "data.n", id="an integer over 2^53-1"),
        pytest.param({"data": {"a": {"B": 1}}}, "data.a", id="a key that is not lower camel case"),
        pytest.param({"data": {"a": ["x\0y"]}}, r"data.a\[0\]", id="a NUL"),
        pytest.param({"data": {"a": "\ud800"}}, "data.a", id="a lone surrogate"),
        pytest.param({"data": {"a": "x" * 17_000}}, "data", id="data over 16 KiB"),
        pytest.param({"blobs": ("sha256:" + "AB" * 32,)}, r"blobs\[0\]", id="an upper-case digest"),
        pytest.param({"blobs": ("sha256:" + "ab" * 32,) * 65}, "blobs", id="65 blobs"),
        pytest.param({"actor": "alice@example.org"}, "actor", id="an e-mail address as actor"),
        pytest.param({"id": "resource.gone/uid-1/1"}, "id", id="an id of another type"),
        pytest.param({"stream": "task/1"}, "stream", id="an unknown stream"),
    ],
)
async def test_a_body_that_breaks_the_format_is_refused_by_path(
    log: EventLog, changes: dict[str, object], names: str
) -> None:
    head = await log.head()
    with pytest.raises(InvalidEntry, match=f"^{names}: "):
        await log.append([body(2), body(1, **changes)])  # type: ignore[arg-type]
    assert await log.head() == head


async def test_get_finds_by_id_and_answers_none_for_what_is_not_there(log: EventLog) -> None:
    (receipt,) = await log.append([body(1)])
    found = await log.get(receipt.id)
    assert found is not None
    assert (found.seq, found.leaf_hash) == (receipt.seq, receipt.leaf_hash)
    assert await log.get("resource.observed/nobody/1") is None


async def test_get_many_leaves_out_what_is_not_recorded(log: EventLog) -> None:
    await log.append([body(1), body(2)])
    found = await log.get_many([body(2).id, "resource.observed/nobody/1", body(1).id])
    assert {event: recorded.entry["id"] for event, recorded in found.items()} == {
        body(1).id: body(1).id,
        body(2).id: body(2).id,
    }
    assert await log.get_many([]) == {}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param(EventFilter(kind="Task"), [0, 2, 4], id="by kind"),
        pytest.param(EventFilter(kind="Task", name="a"), [0], id="by kind and name"),
        pytest.param(EventFilter(uid="uid-3"), [3], id="by uid"),
        pytest.param(EventFilter(uids=frozenset({"uid-1", "uid-4", "uid-none"})), [1, 4], id="by several uids"),
        pytest.param(EventFilter(uids=frozenset({"uid-1", "uid-4"}), kind="Node"), [1], id="by several uids and kind"),
        pytest.param(EventFilter(namespace="demo", actor="p-bob"), [4], id="by actor"),
        pytest.param(EventFilter(types=frozenset({"resource.gone"})), [5], id="by type"),
        pytest.param(
            EventFilter(types=frozenset({"resource.gone", "resource.observed"}), kind="Node"),
            [1, 3, 5],
            id="by several types",
        ),
        pytest.param(EventFilter(stream="graph/none"), [], id="by a stream without entries"),
    ],
)
async def test_query_filters(log: EventLog, where: EventFilter, expected: list[int]) -> None:
    size, _ = await log.head()
    gone = body(5, kind="Node", id=event_id("resource.gone", "uid-5", 1), type="resource.gone")
    await log.append(
        [body(0, name="a"), body(1, kind="Node"), body(2), body(3, kind="Node"), body(4, actor="p-bob"), gone]
    )
    assert [recorded.seq - size for recorded in await log.query(where)] == expected
    newest = await log.query(where, newest_first=True)
    assert [recorded.seq - size for recorded in newest] == expected[::-1]


async def test_query_pages_forwards_and_backwards(log: EventLog) -> None:
    size, _ = await log.head()
    await log.append([body(n) for n in range(10)])
    assert [recorded.seq for recorded in await log.query(after=size + 3, limit=3)] == [size + 4, size + 5, size + 6]
    assert [recorded.seq for recorded in await log.query(limit=2, newest_first=True)] == [size + 9, size + 8]
    older = await log.query(EventFilter(before=size + 8), limit=2, newest_first=True)
    assert [recorded.seq for recorded in older] == [size + 7, size + 6]
    assert [recorded.seq for recorded in await log.query(EventFilter(before=size + 2), after=size)] == [size + 1]
    for limit in (0, 10_001):
        with pytest.raises(InvalidInput, match="limit"):
            await log.query(limit=limit)


async def test_concurrent_appends_make_one_gapless_chain(log: EventLog, backend: Backend) -> None:
    size, _ = await log.head()
    logs = [log, await backend.open("two"), await backend.open("three")]
    receipts = await asyncio.gather(*(logs[n % 3].append([body(n)]) for n in range(300)))
    assert sorted(receipt.seq for (receipt,) in receipts) == list(range(size, size + 300))
    verification = await log.verify_chain()
    assert verification.ok
    assert verification.count == size + 300


async def test_concurrent_appends_of_one_event_are_one_entry(log: EventLog, backend: Backend) -> None:
    logs = [log, await backend.open("two"), await backend.open("three")]
    size, _ = await log.head()
    receipts = await asyncio.gather(*(logs[n % 3].append([body(1)]) for n in range(60)))
    assert len({receipt.seq for (receipt,) in receipts}) == 1
    assert (await log.head())[0] == size + 1


async def test_time_never_goes_back_though_the_clock_does(log: EventLog, backend: Backend) -> None:
    (first,) = await log.append([body(1)])
    backend.time.offset = timedelta(hours=-1)
    (second,) = await log.append([body(2)])
    assert second.time == first.time
    backend.time.offset = timedelta(minutes=1)  # a log may refuse a clock that is far ahead of its own
    (third,) = await log.append([body(3)])
    assert third.time > second.time
    assert (await log.verify_chain()).ok


async def test_the_time_of_an_entry_is_told_by_its_number(log: EventLog) -> None:
    await log.append([body(n) for n in range(3)])
    for recorded in await log.query():
        assert await log.time_at(recorded.seq) == recorded.entry["time"]
    size, _ = await log.head()
    for seq in (-1, size):
        with pytest.raises(NotFound, match=f"no entry {seq} in"):
            await log.time_at(seq)


async def test_stream_gives_what_is_there_and_then_what_comes_in_order(log: EventLog, backend: Backend) -> None:
    size, _ = await log.head()
    await log.append([body(n) for n in range(3)])
    reading = asyncio.create_task(collect(log, size + 53))
    other = await backend.open("two")
    for n in range(3, 53):
        await (log if n % 2 else other).append([body(n)])
    assert [recorded.seq for recorded in await reading] == list(range(size + 53))


async def test_stream_filters_and_starts_after_a_sequence(log: EventLog) -> None:
    size, _ = await log.head()
    reading = asyncio.create_task(collect(log, 3, EventFilter(kind="Node"), after=size + 1))
    await asyncio.sleep(0.05)
    await log.append([body(n, kind="Node" if n % 2 else "Task") for n in range(8)])
    assert [recorded.seq - size for recorded in await reading] == [3, 5, 7]


async def test_a_streaming_reader_misses_nothing_under_concurrent_writers(log: EventLog, backend: Backend) -> None:
    size, _ = await log.head()
    logs = [log, await backend.open("two"), await backend.open("three")]

    async def write(writer: int) -> None:
        for n in range(40):
            await logs[writer].append([body(writer * 1000 + n)])

    reading = [asyncio.create_task(collect(each, 120, after=size - 1)) for each in logs]
    await asyncio.gather(*(write(writer) for writer in range(3)))
    for found in await asyncio.gather(*reading):
        assert [recorded.seq for recorded in found] == list(range(size, size + 120))


async def test_verification_names_its_range_and_the_merkle_root(log: EventLog) -> None:
    await log.append([body(n) for n in range(20)])
    everything = await log.query()
    tree = CompactRange()
    for recorded in everything:
        tree.add(leaf_hash(recorded.octets))
    whole = await log.verify_chain()
    assert (whole.origin, whole.first, whole.last, whole.count) == (log.origin, 0, 21, 22)
    assert (whole.root, whole.broken, whole.ok) == (tree.root().hex(), None, True)
    part = await log.verify_chain(first=5, last=9)
    assert (part.first, part.last, part.count, part.root, part.ok) == (5, 9, 5, "", True)


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (0, 0), (1, None)])
async def test_a_range_beyond_the_end_is_refused_and_no_break(log: EventLog, first: int, last: int | None) -> None:
    size, _ = await log.head()
    until = None if last is None else size + last
    with pytest.raises(InvalidInput, match=f"has {size} entries, 0 to {size - 1}"):
        await log.verify_chain(first=size + first, last=until)


async def test_a_range_that_ends_before_it_begins_is_refused(log: EventLog) -> None:
    with pytest.raises(InvalidInput, match="0 <= first <= last"):
        await log.verify_chain(first=3, last=2)


async def test_zero_entries_verified_is_not_a_success(log: EventLog) -> None:
    size, _ = await log.head()
    empty = await log.verify_chain(first=size)
    assert (empty.count, empty.broken, empty.ok) == (0, None, False)


async def test_an_append_during_verification_is_neither_lost_nor_a_break(log: EventLog) -> None:
    await log.append([body(n) for n in range(500)])
    verification, _ = await asyncio.gather(log.verify_chain(), log.append([body(n) for n in range(500, 600)]))
    assert verification.ok
    assert (await log.verify_chain()).count == 602


async def test_a_new_epoch_fences_the_earlier_holder_of_the_name(log: EventLog, backend: Backend) -> None:
    old, new = log, await backend.open("one")
    first = await old.begin_epoch()
    await old.check_epoch()
    await old.append([body(1)])
    assert await new.begin_epoch() == first + 1
    with pytest.raises(Fenced):
        await old.check_epoch()
    with pytest.raises(Fenced):
        await old.append([body(2)])
    await new.check_epoch()
    await new.append([body(3)])
    assert await new.get(body(2).id) is None


async def test_a_holder_that_never_began_an_epoch_is_fenced_by_the_first(log: EventLog, backend: Backend) -> None:
    await log.append([body(1)])
    await (await backend.open("one")).begin_epoch()
    with pytest.raises(Fenced):
        await log.append([body(2)])


async def test_an_epoch_does_not_concern_writers_of_other_names(log: EventLog, backend: Backend) -> None:
    other = await backend.open("other")
    await other.append([body(1)])
    await log.begin_epoch()
    await log.begin_epoch()
    await other.append([body(2)])
    await other.check_epoch()


async def test_a_closed_log_refuses(log: EventLog) -> None:
    await log.close()
    with pytest.raises(Unavailable, match="closed"):
        await log.append([body(1)])
