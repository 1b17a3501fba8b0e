"""Rows 16 to 19 of the attack table: writers that race, writers that die, ids used twice, readers that are overtaken.

Each race is first run, step by step, with its protection removed. What the protection is worth under many processes and
real faults is shown by ``tests/faults/test_crowd.py`` and ``tests/faults/test_syscalls.py``.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from tests.attacks.test_log_tampering import as_superuser, first_break
from tests.conftest import Database
from tests.contract.test_event_log import body

from triplane.adapters.postgres import appender
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.ownerappend import append_within
from triplane.audit.entry import format_time, prepare
from triplane.audit.merkle import leaf_hash
from triplane.errors import Fenced, IdReused, Unavailable

pytestmark = pytest.mark.attacks

GENESIS = bytes(32)
EMPTIED = (
    "TRUNCATE log.entries, log.entry_ids",
    "UPDATE log.heads SET size = 0, leaf = decode(repeat('00', 32), 'hex'), time = ''",
)
Connection = psycopg.Connection[Any]


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresEventLog]:
    opened = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    yield opened
    await opened.close()


def insert(connection: Connection, origin: str, number: int, seq: int, prev: bytes) -> None:
    """An entry written past the append function, with everything that belongs to it."""
    event = body(number)
    made = prepare(origin, event)
    moment = format_time(datetime.now(UTC))
    octets, subject = made.seal(seq, prev.hex(), moment), event.subject
    connection.execute(
        "INSERT INTO log.entries VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(origin, seq, octets, leaf_hash(octets), event.id, event.stream, event.type, moment, event.actor),
            *(subject.kind, subject.namespace, subject.name, subject.uid),
        ),
    )
    connection.execute("INSERT INTO log.entry_ids VALUES (%s, %s, %s, %s)", (origin, event.id, seq, made.body_sha256))


def raw_append(connection: Connection, origin: str, number: int, size: int, leaf: bytes) -> bool:
    """Through the append function, as the appender does."""
    moment = format_time(datetime.now(UTC))
    return append_within(
        connection, origin, [prepare(origin, body(number))], size=size, leaf=leaf, time=moment, writer="raw"
    )


async def test_16_a_lock_on_the_last_row_does_not_keep_two_from_the_first_place(
    log: PostgresEventLog, database: Database
) -> None:
    """The protection removed: no head row, no unique place. In an empty table there is no last row to lock."""
    as_superuser(database, *EMPTIED, "ALTER TABLE log.entries DROP CONSTRAINT entries_pkey")
    with database.superuser() as one, database.superuser() as other:
        for connection in (one, other):
            connection.autocommit = False
            tail = connection.execute("SELECT seq FROM log.entries ORDER BY seq DESC LIMIT 1 FOR UPDATE").fetchone()
            assert tail is None
        insert(one, log.origin, 1, 0, GENESIS)
        insert(other, log.origin, 2, 0, GENESIS)  # nothing holds it up
        one.commit()
        other.commit()
    found = await first_break(log)
    assert (found.seq, found.reason) == (0, "EntryRepeated")
    assert found.remedy


async def test_16_of_two_that_race_for_the_first_place_of_an_empty_log_one_waits_and_is_told(
    log: PostgresEventLog, database: Database
) -> None:
    as_superuser(database, *EMPTIED)
    answers: list[bool] = []
    with psycopg.connect(database.dsn("operator")) as one:
        assert raw_append(one, log.origin, 1, 0, GENESIS)

        def race() -> None:
            with psycopg.connect(database.dsn("gateway"), application_name="racer") as other:
                answers.append(raw_append(other, log.origin, 2, 0, GENESIS))

        racer = threading.Thread(target=race)
        racer.start()
        await asyncio.to_thread(_until_blocked, database, "racer")
        one.commit()
    await asyncio.to_thread(racer.join, 60)
    assert answers == [False], "it must learn that the place is taken, and look again"
    (receipt,) = await log.append([body(2)])  # as the appender does
    assert receipt.seq == 1
    verification = await log.verify_chain()
    assert (verification.ok, verification.count) == (True, 2)


def _until_blocked(database: Database, name: str) -> None:
    deadline = time.monotonic() + 60
    with database.superuser() as admin:
        while not admin.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'", (name,)
        ).fetchall():
            assert time.monotonic() < deadline, f"{name} does not wait for the head row"
            time.sleep(0.01)


async def test_16_without_epochs_two_leaders_both_lead_and_with_them_the_older_is_told_to_stop(
    log: PostgresEventLog, database: Database
) -> None:
    new = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await log.append([body(1)])
    await new.append([body(2)])
    await log.append([body(3)])  # nobody has begun an epoch: both decide, neither knows of the other
    await new.begin_epoch()
    size, _ = await log.head()
    with pytest.raises(Fenced, match=r"has epoch 1, not 0.*newer process has taken over: stop this one"):
        await log.append([body(4)])
    assert (await log.head())[0] == size
    await new.append([body(4)])
    await new.close()


async def test_17_a_reply_to_commit_that_is_lost_doubles_an_event_only_where_its_id_is_made_anew(
    log: PostgresEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protection removed: a caller that names its event by the attempt, as a random id would."""
    size, _ = await log.head()
    cuts = 1

    def cut(place: str) -> None:
        nonlocal cuts
        if place == "log.append.after_commit" and cuts:
            cuts -= 1
            raise psycopg.OperationalError("the connection was cut after COMMIT was sent")

    monkeypatch.setattr(appender, "failpoint", cut)
    monkeypatch.setattr(appender, "RETRY_SECONDS", -1.0)  # the caller learns of it, and tries again itself
    with pytest.raises(Unavailable, match="append the same again to find out"):
        await log.append([body(1)])
    await log.append([body(1, id="resource.observed/uid-1/2")])
    assert (await log.head())[0] == size + 2, "one thing that happened stands there twice"

    cuts = 1
    with pytest.raises(Unavailable, match="append the same again to find out"):
        await log.append([body(5)])
    (receipt,) = await log.append([body(5)])
    assert receipt.seq == size + 2
    assert (await log.head())[0] == size + 3
    assert (await log.verify_chain()).ok


async def test_18_an_id_with_another_body_stands_twice_without_the_index_and_is_named_by_verification(
    log: PostgresEventLog, database: Database
) -> None:
    """The protection removed: no unique index of ids. Whoever looks the id up is told either story."""
    (first,) = await log.append([body(1)])
    as_superuser(database, "ALTER TABLE log.entry_ids DROP CONSTRAINT entry_ids_pkey CASCADE")
    other = prepare(log.origin, body(1, data={"count": 99}))
    with psycopg.connect(database.dsn("operator")) as connection:
        leaf = bytes.fromhex(first.leaf_hash)
        assert append_within(
            connection, log.origin, [other], size=first.seq + 1, leaf=leaf, time=first.time, writer="raw"
        )
    found = await first_break(log)
    assert (found.seq, found.reason) == (0, "IdIndexMismatch")
    assert "the unique index over ids of log.entry_ids is gone" in found.message
    assert found.remedy
    entries = [recorded for recorded in await log.query(after=first.seq - 1) if recorded.entry["id"] == first.id]
    assert [recorded.entry["data"]["count"] for recorded in entries] == [1, 99]


async def test_18_an_id_with_another_body_is_refused_with_its_place_and_what_to_do(log: PostgresEventLog) -> None:
    (first,) = await log.append([body(1)])
    head = await log.head()
    with pytest.raises(IdReused) as refused:
        await log.append([body(2), body(1, data={"count": 99})])
    assert f"the id {first.id} is in the log at {first.seq} with another body" in str(refused.value)
    assert "look it up and apply what is recorded" in str(refused.value)
    assert await log.head() == head


async def test_19_a_reader_of_entries_that_commit_out_of_order_misses_one(
    log: PostgresEventLog, database: Database
) -> None:
    """The protection removed: numbers are taken without the lock of the head, and the later one is committed first."""
    size, head = await log.head()
    as_superuser(database)
    with database.superuser() as one, database.superuser() as other:
        for connection in (one, other):
            connection.autocommit = False
        insert(one, log.origin, 1, size, bytes.fromhex(head))
        insert(other, log.origin, 2, size + 1, GENESIS)
        other.execute("UPDATE log.heads SET size = %s", (size + 2,))
        other.commit()
        reading = log.stream(after=size - 1)
        seen = await asyncio.wait_for(anext(reading), 60)
        assert seen.seq == size + 1, "it has gone past what is not committed yet"
        one.commit()
        await reading.aclose()
    assert [recorded.seq async for recorded in _some(log.stream(after=seen.seq), 0.5)] == [], "and does not come back"


async def test_19_a_writer_in_the_middle_of_its_commit_is_waited_for_by_those_behind_it(
    log: PostgresEventLog, database: Database
) -> None:
    size, head = await log.head()
    with psycopg.connect(database.dsn("gateway")) as slow:
        assert raw_append(slow, log.origin, 1, size, bytes.fromhex(head))
        behind = asyncio.create_task(log.append([body(2)]))
        await asyncio.to_thread(_until_blocked, database, "triplane log operator append")
        assert [recorded async for recorded in _some(log.stream(after=size - 1), 0.3)] == []
        slow.commit()
    (receipt,) = await behind
    assert receipt.seq == size + 1
    assert [recorded.seq async for recorded in _some(log.stream(after=size - 1), 60, 2)] == [size, size + 1]


async def _some(stream: AsyncIterator[Any], seconds: float, most: int = 100) -> AsyncIterator[Any]:
    """What comes of a stream within some time."""
    try:
        async with asyncio.timeout(seconds):
            async for recorded in stream:
                yield recorded
                most -= 1
                if most == 0:
                    return
    except TimeoutError:
        return
