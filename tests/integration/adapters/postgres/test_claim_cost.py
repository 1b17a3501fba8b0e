"""What a claim costs does not grow with what has finished: the plans of its statements, over 10,000 finished runs."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.conftest import Database

from triplane.adapters.postgres import sessionsql as sql
from triplane.adapters.postgres.sessionrows import LIVE, OPEN, SESSION
from triplane.adapters.postgres.sessionspending import SETTLE, SHARDS, SPENT

FINISHED, WAITING, LIVE_RUNS = 10_000, 20, 4
FILL = """
INSERT INTO sessions.sessions (uid, namespace, name, task_uid, graph_uid, agent_uid, agent_name, role,
    snapshot_digest, work_order, closed, waiting)
SELECT %(kind)s || n, 'team', 's' || n, 'task-' || %(kind)s || n, 'g' || n %% 7, 'a' || n %% 5, 'agent', 'producer',
    'sha256:', '{}', %(kind)s = 'done-', %(kind)s IN ('permitted-', 'queued-')
FROM generate_series(1, %(many)s) AS n
"""
FILL_RUNS = """
INSERT INTO sessions.runs (session_uid, run, state, permit_counter, revocation_revision, authority_digest,
    policy_digest, permitted_at, permit_seconds, run_inputs, runner, instance, claimed_at)
SELECT %(kind)s || n, 1, %(state)s, 1, 0, '', '', clock_timestamp(), 10, '{}', %(runner)s, %(runner)s,
    CASE WHEN %(runner)s::text IS NOT NULL THEN clock_timestamp() END
FROM generate_series(1, %(many)s) AS n
"""


@pytest.fixture
def crowded(database: Database) -> Iterator[psycopg.Connection]:
    """A database in which 10,000 runs have finished, 4 are live and 20 wait, half of them with a permit."""
    with database.superuser() as connection:
        for kind, state, runner, many in (
            ("done-", "finished", "r", FINISHED),
            ("live-", "started", "r", LIVE_RUNS),
            ("permitted-", "permitted", None, WAITING // 2),
            ("queued-", None, None, WAITING // 2),
        ):
            values = {"kind": kind, "state": state, "runner": runner, "many": many}
            connection.execute(FILL, values)
            if state is not None:
                connection.execute(FILL_RUNS, values)
        connection.execute(
            "INSERT INTO sessions.spent SELECT uid, shard, 1, 1, 1, 1 FROM generate_series(0, %s) AS shard,"
            " (SELECT task_uid FROM sessions.sessions UNION SELECT graph_uid FROM sessions.sessions) AS known (uid)",
            (SHARDS - 1,),
        )
        connection.execute("INSERT INTO sessions.limits VALUES ('a1', 3, now()), ('', 50, now())")
        connection.execute("ANALYZE")
        yield connection


@pytest.mark.parametrize(
    ("query", "values"),
    [
        pytest.param(sql.ANY_WAITING, {}, id="is there anything to claim"),
        pytest.param(sql.PICK, {}, id="pick"),
        pytest.param(sql.WANT_AHEAD, {"ahead": 4, "taken": True, "asked_seconds": 1.0}, id="ask ahead"),
        pytest.param(sql.OUTSTANDING, {"graph": "g1"}, id="what lies ready"),
        pytest.param(LIVE, {}, id="live runs"),
        pytest.param(OPEN + "ORDER BY s.position", {}, id="open sessions"),
        pytest.param(OPEN + "AND s.task_uid = %(task)s", {"task": "task-queued-3"}, id="open sessions of a task"),
        pytest.param(SESSION + "WHERE s.uid = ANY (%(uids)s)", {"uids": ["permitted-3"]}, id="one session"),
        pytest.param(sql.WANT_AGAIN, {"namespace": "team"}, id="void permits"),
        pytest.param(SPENT, {"uids": ["g1", "task-done-7"]}, id="what is spent"),
        pytest.param(SETTLE, {"sessions": ["live-1"], "runs": [1]}, id="add what a run has spent"),
    ],
)
def test_a_statement_touches_only_what_waits_or_lives(
    crowded: psycopg.Connection, query: str, values: dict[str, Any]
) -> None:
    with crowded.transaction(force_rollback=True):
        row = crowded.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query, values).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    touched = [(node, node["Actual Rows"] * node["Actual Loops"]) for node in _nodes(plan) if "Relation Name" in node]
    discarded = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in _nodes(plan))
    shown = json.dumps(plan, indent=1)
    assert discarded < FINISHED / 20, shown
    assert sum(rows for _, rows in touched) < FINISHED / 20, shown


MANY = 2_000


@pytest.mark.parametrize(
    ("query", "values"),
    [
        pytest.param(sql.PICK, {}, id="pick"),
        pytest.param(sql.WANT_AHEAD, {"ahead": 4, "taken": True, "asked_seconds": 1.0}, id="ask ahead"),
    ],
)
def test_a_long_line_costs_each_who_waits_a_little_and_not_each_times_each(
    crowded: psycopg.Connection, query: str, values: dict[str, Any]
) -> None:
    with crowded.transaction(force_rollback=True):
        crowded.execute(FILL, {"kind": "long-", "many": MANY})
        crowded.execute("UPDATE sessions.sessions SET waiting = true WHERE uid LIKE 'long-%'")
        row = crowded.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, values).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    work = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in _nodes(plan)
    )
    assert work < 50 * MANY, json.dumps(plan, indent=1)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
