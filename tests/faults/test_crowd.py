"""Histories of many writers under faults; ``make faults`` checks more of them (docs/contributing/faults.md)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PostgresServer, new_database, running_server
from tests.faults.crowd import Crowd, Plan
from tests.faults.history import Kind
from tests.faults.syscalls import asked_seed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with running_server() as made:
        yield made


def test_without_synced_commits_a_crash_loses_what_was_acknowledged_and_it_is_found(
    server: PostgresServer, tmp_path: Path
) -> None:
    plan = Plan(asked_seed(), writers=3, appends=20, faults=3, kinds=("backend killed",), durable=False)
    database = new_database(server)
    with database.superuser() as admin:
        admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # or it would sync in time, on a slow machine
        admin.execute("SELECT pg_reload_conf()")
    findings = Crowd(database, tmp_path, plan).run()
    assert Kind.LOST in {problem.kind for problem in findings.problems}


def test_under_faults_acknowledged_is_recorded_once_and_unknown_at_most_once_in_the_order_of_commits(
    server: PostgresServer, tmp_path: Path
) -> None:
    findings = Crowd(new_database(server), tmp_path, Plan(asked_seed(), appends=16)).run()
    assert [str(problem) for problem in findings.problems] == []
    assert len(findings.faults) == 9, "every kind of fault was struck"
    assert findings.results["ok"] > 60
    assert findings.results["info"] > 0, "no outcome was ever unknown: nothing was shown"
    assert findings.results["fail"] > 0
