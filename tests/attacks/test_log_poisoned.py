"""Row 15 of the attack table: one statement by a login that may append, meant to ruin the log for good.

Each is refused; where a check can be taken out by itself, the harm is shown without it.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.contract.test_event_log import body

from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.entry import Prepared, format_time, prepare
from triplane.audit.merkle import leaf_hash
from triplane.errors import Corrupt, Unavailable

pytestmark = pytest.mark.attacks

ROW = "ROW(" + ", ".join(["%s"] * 14) + ")::log.new_entry"
ENTRIES, LEAVES = f"ARRAY[{ROW}]", "ARRAY[%s::bytea]"
SECOND = "('[2:2]={\"\\\\x' || encode(%s::bytea, 'hex') || '\"}')::bytea[]"


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresEventLog]:
    opened = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    await opened.append([body(number) for number in range(3)])
    yield opened
    await opened.close()


def append_raw(
    database: Database,
    head: tuple[int, str],
    entry: Prepared,
    *,
    time: str | None = None,
    leaf: bytes | None = None,
    entries: str = ENTRIES,
    leaves: str = LEAVES,
    options: str = "",
) -> None:
    """What one statement by the gateway's login says."""
    size, prev = head
    time = time or format_time(datetime.now(UTC))
    leaf = leaf or leaf_hash(entry.seal(size, prev, time))
    row = (*entry.context, entry.id, entry.name, entry.uid, entry.generation, entry.blobs, entry.data.decode())
    statement = f"SELECT log.log_append(%s, 'raw', 0, %s, %s, {entries}, {leaves})"
    with psycopg.connect(database.dsn("gateway"), autocommit=True, options=options) as gateway:
        cursor = gateway.execute(
            statement,  # type: ignore[arg-type]
            (database.origin, size, time, *row, entry.body_sha256, leaf),
        )
        assert cursor.fetchone() == (True,)


async def refused(
    log: PostgresEventLog, database: Database, entry: Prepared, sqlstate: str = "TP004", **how: Any
) -> None:
    """The statement is refused, and the log is as it was."""
    head = await log.head()
    with pytest.raises(psycopg.Error) as error:
        append_raw(database, head, entry, **how)
    assert error.value.sqlstate == sqlstate, error.value
    assert await log.head() == head


def without(database: Database, check: str, instead: str = "") -> None:
    """Remove this from the function."""
    with database.superuser() as admin:
        found = admin.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'log_append'").fetchone()
        assert found is not None
        assert check in found[0]
        admin.execute(found[0].replace(check, instead))


def holding(entry: Prepared, data: str) -> Prepared:
    """The entry with other data, unchecked, and the hashes that are then its own."""
    head = entry.head.replace(b'"data":' + entry.data, b'"data":' + data.encode(), 1)
    digest = sha256(b"%b,%b,%b" % (head, entry.middle, entry.tail)).digest()
    return entry._replace(data=data.encode(), head=head, body_sha256=digest)


async def test_15_hashes_that_begin_with_the_second_leave_the_head_with_another(
    log: PostgresEventLog, database: Database
) -> None:
    """``p_leaves[:n - 1]`` counts by the array's own bounds: with two entries the second one's prev would be empty."""
    size, prev = await log.head()
    time = format_time(datetime.now(UTC))
    entry, other = (prepare(log.origin, body(number)) for number in (50, 51))
    first = leaf_hash(entry.seal(size, prev, time))
    second = leaf_hash(other.seal(size + 1, "", time))
    rows = [
        (*one.context, one.id, one.name, one.uid, one.generation, one.blobs, one.data.decode(), one.body_sha256)
        for one in (entry, other)
    ]
    statement = f"SELECT log.log_append(%s, 'raw', 0, %s, %s, ARRAY[{ROW}, {ROW}], %s::bytea[])"
    leaves = f'[2:3]={{"\\\\x{first.hex()}","\\\\x{second.hex()}"}}'

    def attack() -> None:
        with psycopg.connect(database.dsn("gateway"), autocommit=True) as gateway:
            gateway.execute(statement, (log.origin, size, time, *rows[0], *rows[1], leaves))  # type: ignore[arg-type]

    with pytest.raises(psycopg.Error) as error:
        attack()
    assert error.value.sqlstate == "TP004"
    assert await log.head() == (size, prev)
    without(database, "AND array_lower(p_entries, 1) = 1 AND array_lower(p_leaves, 1) = 1")
    attack()
    assert await log.head() == (size + 2, first.hex()), "the head says the hash of the entry before the last"
    assert not (await log.verify_chain()).ok


async def test_15_arrays_of_another_form_are_refused(log: PostgresEventLog, database: Database) -> None:
    entry = prepare(log.origin, body(50))
    await refused(log, database, entry, leaves=SECOND)
    await refused(log, database, entry, leaves="ARRAY[ARRAY[%s::bytea]]")
    await refused(log, database, entry, entries=f"ARRAY[ARRAY[{ROW}]]")


@pytest.mark.parametrize(
    "time", ["9999-99-99T99:99:99.999999Z", "2030-02-30T00:00:00.000000Z", "2030-01-01T24:00:00.000000Z"]
)
async def test_15_a_time_that_is_none_is_refused(log: PostgresEventLog, database: Database, time: str) -> None:
    await refused(log, database, prepare(log.origin, body(50)), time=time)


async def test_15_a_time_far_ahead_which_all_that_follows_would_have_is_refused(
    log: PostgresEventLog, database: Database
) -> None:
    entry, far = prepare(log.origin, body(50)), format_time(datetime.now(UTC) + timedelta(days=9))
    near = format_time(datetime.now(UTC) + timedelta(minutes=4))
    await refused(log, database, entry, "TP007", time=far)
    append_raw(database, await log.head(), entry, time=near)
    assert [receipt.time for receipt in await log.append([body(51)])] == [near]
    assert (await log.verify_chain()).ok
    without(database, "'5 minutes'", "'5 years'")
    append_raw(database, await log.head(), prepare(log.origin, body(52)), time=far)
    assert [receipt.time for receipt in await log.append([body(53)])] == [far]


async def test_a_writer_whose_clock_is_far_ahead_is_told_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triplane.adapters.postgres.appender.RETRY_SECONDS", 0.1)
    log = PostgresEventLog(
        database.dsn("operator"), writer="operator", now=lambda: datetime.now(UTC) + timedelta(hours=1)
    )
    await log.open()
    with pytest.raises(Unavailable, match=r"ahead of the server's clock, which is at .*: set the clock"):
        await log.append([body(1)])
    await log.close()


DEEP = 1100


@pytest.mark.parametrize(
    "data",
    [
        pytest.param('{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param('{"a":1e999}', id="a number too large"),
        pytest.param('{"a" : 1e999}', id="a number too large, after white space"),
        pytest.param('{"a":\n1e999}', id="a number too large, on the next line"),
        pytest.param('{"a":[2,-1E+999]}', id="a number too small, in an array"),
        pytest.param('{"a":' + "[" * DEEP + "]" * DEEP + "}", id="nested too deep"),
    ],
)
async def test_15_json_that_readers_cannot_read_is_refused(
    log: PostgresEventLog, database: Database, data: str
) -> None:
    entry = holding(prepare(log.origin, body(50)), data)
    await refused(log, database, entry)
    without(database, "log.is_readable(concat('[', json, ']'))", "true")
    size, prev = await log.head()
    append_raw(database, (size, prev), entry)
    with pytest.raises(Corrupt, match=f"entry {size} is not JSON .*: verify the log"):
        await log.query(after=size - 1)


@pytest.mark.parametrize(
    "data", ['{"a":1.5}', '{"a":1e5}', '{"a":9007199254740992}', '{"a":1' + "0" * 400 + "}", '{"a":"\\u0000"}']
)
async def test_22_what_two_readers_would_read_in_two_ways_is_refused_by_the_server_too(
    log: PostgresEventLog, database: Database, data: str
) -> None:
    await refused(log, database, holding(prepare(log.origin, body(50)), data))


HONEST = [
    pytest.param(
        {"a": '\u001b[31m was, 1.5 and [2e9, "x": 3.5 \\u12', "b": -9007199254740991, "c": [9007199254740991, 0]},
        id="escapes and large integers",
    ),
    pytest.param(
        {"at": "2026-01-02T03:04:05.123456Z", "b": "é\u2028😀", "digest": "sha256:" + "3e" * 32}, id="times and digests"
    ),
    pytest.param({"rows": [{"a": 1} for _ in range(1500)]}, id="many values"),
    pytest.param({"a": "\u001b", "rows": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}, id="nested as deep as may be"),
]


@pytest.mark.parametrize("data", HONEST)
async def test_what_the_format_has_is_let_through(log: PostgresEventLog, data: dict[str, Any]) -> None:
    await log.append([body(50, data=data)])
    found = await log.get(body(50).id)
    assert found is not None
    assert found.entry["data"] == data
    assert (await log.verify_chain()).ok


async def test_15_the_callers_session_does_not_say_what_is_hashed(log: PostgresEventLog, database: Database) -> None:
    """Without the setting, ``'\\x00'`` is three characters to a session that wants it so, and the tree another one."""
    (size, prev), time = await log.head(), format_time(datetime.now(UTC))
    entry = prepare(log.origin, body(50))
    leaf = sha256(b"x00" + entry.seal(size, prev, time)).digest()
    otherwise = "-c standard_conforming_strings=off"
    await refused(log, database, entry, time=time, leaf=leaf, options=otherwise)
    append_raw(database, (size, prev), entry, time=time, options=otherwise)
    assert (await log.verify_chain()).ok
