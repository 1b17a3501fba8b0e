"""Looking entries up costs the same however long the log is: also by a plan made while it was empty."""

import json
from typing import Any

import pytest
from psycopg import sql
from tests.conftest import Database

from triplane.adapters.postgres.appender import _KNOWN
from triplane.adapters.postgres.eventlog import _GET, _select
from triplane.audit.model import EventFilter


@pytest.mark.parametrize("query", [pytest.param(_GET, id="entries"), pytest.param(_KNOWN, id="receipts")])
def test_an_entry_is_looked_up_by_its_number(database: Database, query: str) -> None:
    with database.superuser() as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute("SET enable_seqscan = off")
        prepared = query.replace("%s", "$1", 1).replace("%s", "$2", 1)
        connection.execute(f"PREPARE looked_up (text, text[]) AS {prepared}")
        row = connection.execute("EXPLAIN (FORMAT JSON) EXECUTE looked_up ('o', ARRAY['a', 'b'])").fetchone()

    plan = _plan(row)
    conditions = _conditions(plan, "entries")
    assert conditions, f"the entries are not looked up by an index: {plan}"
    assert all("(seq = i.seq)" in condition for condition in conditions), conditions


def test_the_entries_of_several_objects_are_looked_up_by_each_uid(database: Database) -> None:
    """Of a table that has not been analysed the planner believes that a range of numbers finds little."""
    where = EventFilter(uids=frozenset(f"uid-{number}" for number in range(20)), kind="Task")
    statement, values = _select(database.origin, where, after=-1)
    with database.superuser() as connection:
        query = sql.SQL("EXPLAIN (FORMAT JSON) {} ORDER BY seq LIMIT 1000").format(statement)
        row = connection.execute(query, values).fetchone()

    conditions = _conditions(_plan(row), "entries")
    assert conditions
    assert all("(uid = wanted.uid)" in condition for condition in conditions), conditions


def _plan(row: tuple[Any, ...] | None) -> dict[str, Any]:
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    found: dict[str, Any] = plan[0]["Plan"]
    return found


def _conditions(node: dict[str, Any], table: str) -> list[str]:
    """How the table (its first partition) is searched, wherever in the plan."""
    found = [node.get("Index Cond", "")] if node.get("Relation Name", "").startswith(f"{table}_0") else []
    for child in node.get("Plans", ()):
        found += _conditions(child, table)
    return found
