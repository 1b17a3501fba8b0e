"""A seeded part of the crash campaign at single system calls; ``make faults`` does all of it
(docs/contributing/faults.md)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PostgresServer, new_database, running_server
from tests.faults.appendstrikes import Appends
from tests.faults.inject import Strike
from tests.faults.storestrikes import CARELESS, STORE_CASES, strike_stores
from tests.faults.syscalls import FILE_ERRORS, Report, asked_seed, some, strikes
from tests.faults.victims import END, Nursery

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

STORES, CLIENTS, BACKENDS = 12, 10, 3
"""Strikes of each kind, in CI."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server whose backends are killed."""
    with running_server() as made:
        yield made


def test_there_is_a_kill_at_every_call_and_an_error_at_every_call_that_may_return_it() -> None:
    every = strikes(["read", "openat", "write", "fsync", "write", END, "write"], FILE_ERRORS, start=2)
    assert [str(strike) for strike in every] == [
        *(f"inject=all:signal=KILL:when={number}" for number in (2, 3, 4, 5, 6)),
        *(f"inject=openat:error={error}:when=1" for error in ("EIO", "ENOSPC", "EINTR")),
        *(f"inject=write:error={error}:when=1" for error in ("EIO", "ENOSPC", "EINTR")),
        *(f"inject=fsync:error={error}:when=1" for error in ("EIO", "ENOSPC", "EINTR")),
        *(f"inject=write:error={error}:when=2" for error in ("EIO", "ENOSPC", "EINTR")),
    ]


def test_a_seed_draws_the_same_strikes_again() -> None:
    every = [Strike(number) for number in range(100)]
    assert some(every, 7, 10) == some(every, 7, 10) != some(every, 8, 10)
    assert some(every, 7, None) == every


async def test_without_a_temporary_file_a_store_that_is_struck_shows_a_part(nursery: Nursery, tmp_path: Path) -> None:
    report = Report()
    await strike_stores(nursery, tmp_path, report, cases=[CARELESS], each=30)
    assert any("octets of 640000 are to be seen under the blob's name" in problem for problem in report.problems)


async def test_a_store_that_is_struck_at_any_call_is_whole_or_not_there(nursery: Nursery, tmp_path: Path) -> None:
    report = Report()
    await strike_stores(nursery, tmp_path, report, seed=asked_seed(), each=STORES)
    print(report.table())
    assert report.problems == []
    assert report.counts.total() == STORES * len(STORE_CASES)
    assert {fault for _, fault, _ in report.counts} == {"SIGKILL", *FILE_ERRORS}


async def test_an_append_that_was_acknowledged_and_is_not_recorded_would_be_found(server: PostgresServer) -> None:
    report = Report()
    async with Appends(new_database(server), report).opened() as appends:
        true = await appends.log.append(appends.bodies(500))
        assert await appends.after_append(500, true) == (True, [])
        found, problems = await appends.after_append(600, true)
    assert not found
    assert [problem.split(" ")[0] for problem in problems] == ["acknowledged"]


async def test_an_append_whose_client_is_struck_at_any_call_is_recorded_whole_and_once(
    server: PostgresServer, nursery: Nursery
) -> None:
    report = Report()
    async with Appends(new_database(server), report).opened() as appends:
        for warm in (True, False):
            await appends.in_the_client(nursery, warm=warm, seed=asked_seed(), each=CLIENTS)
    print(report.table())
    assert report.problems == []
    assert {fault for _, fault, _ in report.counts} >= {"SIGKILL", "EINTR"}


async def test_an_append_whose_backend_is_struck_at_any_call_is_recorded_whole_and_once(server: PostgresServer) -> None:
    report = Report()
    async with Appends(new_database(server), report).opened() as appends:
        for overtaken in (False, True):
            await appends.in_the_backend(overtaken=overtaken, seed=asked_seed(), each=BACKENDS)
    print(report.table())
    assert report.problems == []


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"], ids=["written", "synced"])
async def test_a_log_that_cannot_be_written_ahead_ends_the_server_and_acknowledges_nothing_false(
    server: PostgresServer, call: str
) -> None:
    report = Report()
    before = _panics(server)
    async with Appends(new_database(server), report).opened() as appends:
        await appends.in_the_backend(overtaken=False, only=[Strike(1, call, "EIO")])
    assert report.problems == []
    assert report.counts.total() == 1
    assert _panics(server) == before + 1, "the server must not go on after a failed write of its log"


def _panics(server: PostgresServer) -> int:
    return sum(path.read_text(errors="replace").count("PANIC:") for path in server.embedded.log.glob("*.log"))
