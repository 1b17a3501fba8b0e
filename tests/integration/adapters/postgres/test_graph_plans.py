"""Label queries use their indexes: the server's own plan says so, for every form of selector and for every page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from tests.conftest import Database, PostgresServer, drop_database, new_database

from triplane.adapters.postgres.graphpages import Page
from triplane.adapters.postgres.graphsql import LATEST
from triplane.domain.selector import parse_selector

ROWS = 20_000
BY_LABELS = "resources_by_labels"
BY_PLACE = "resources_by_place"
FILL = """
INSERT INTO graph.resources (uid, kind, namespace, name, generation, labels, spec, requester, seq, gone)
SELECT 'u-' || n, CASE n %% 4 WHEN 0 THEN 'Node' ELSE 'Task' END, 'team-' || n %% 5, 'name-' || n, 1,
    jsonb_build_object('graph', 'g-' || n %% 2000, 'env', CASE n %% 10 WHEN 0 THEN 'test' ELSE 'prod' END)
        || CASE WHEN n %% 1000 = 7 THEN '{"rare": "yes"}'::jsonb ELSE '{}'::jsonb END,
    '{"objective": "some work"}', NULL, n, false
FROM generate_series(1, %s) n"""
FIRST = None
SECOND = ("Task", "team-2", "name-1002", "u-1002")


@dataclass(frozen=True)
class Filled:
    """A database with many resources, and the operator's connection to it."""

    database: Database
    connection: psycopg.Connection


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[Filled]:
    """The connection with the server's own planner settings, where the pool of the stores forbids scans: an
    index is used because it is the best way, not for want of another."""
    database = new_database(postgres_server)
    with database.superuser() as anyone:
        anyone.execute(FILL, (ROWS,))
        anyone.execute("ANALYZE graph.resources")
    with psycopg.connect(database.dsn("operator"), autocommit=True) as connection:
        yield Filled(database, connection)
    drop_database(database)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def explained(connection: psycopg.Connection, page: Page) -> list[dict[str, Any]]:
    (row,) = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + page.statement().as_string(connection)).fetchall()
    return list(nodes(row[0][0]["Plan"]))


@pytest.mark.parametrize("after", [pytest.param(FIRST, id="the first page"), pytest.param(SECOND, id="a later page")])
@pytest.mark.parametrize("upto", [pytest.param(LATEST, id="as it is"), pytest.param(15_000, id="as of an entry")])
@pytest.mark.parametrize(
    ("selector", "index"),
    [
        pytest.param("graph=g-7", BY_LABELS, id="equal to what few have"),
        pytest.param("graph in (g-7, g-8, g-9)", BY_LABELS, id="in a list that few are in"),
        pytest.param("rare", BY_LABELS, id="a label that few have"),
        pytest.param("graph=g-7,env=prod", BY_LABELS, id="equal to what few have and to what most have"),
        pytest.param("graph=g-7,env!=test,!gone", BY_LABELS, id="equal, and unequal, and absent"),
        pytest.param("rare,env notin (prod, test)", BY_LABELS, id="exists, and not in"),
        pytest.param("rare,graph in (g-7, g-1007),env,!other,env!=x", BY_LABELS, id="all forms at once"),
        pytest.param("", BY_PLACE, id="everything"),
        pytest.param("env=prod", BY_PLACE, id="equal to what most have"),
        pytest.param("env", BY_PLACE, id="a label that all have"),
        pytest.param("env!=test", BY_PLACE, id="unequal"),
        pytest.param("env notin (test, dev)", BY_PLACE, id="not in"),
        pytest.param("!rare", BY_PLACE, id="absent"),
        pytest.param("!rare,env!=test,graph notin (g-1, g-2)", BY_PLACE, id="only forms that exclude"),
    ],
)
def test_every_selector_uses_an_index(
    filled: Filled, selector: str, index: str, upto: int, after: tuple[str, str, str, str] | None
) -> None:
    found = explained(filled.connection, Page(parse_selector(selector), "Task", None, after, 100, upto))
    used = {node["Index Name"] for node in found if "Index Name" in node}
    assert index in used, found[0]
    assert not [node for node in found if node["Node Type"] == "Seq Scan" and node.get("Relation Name") == "resources"]
    if index == BY_PLACE:  # in the order of the page, and no further than the page goes
        (scan,) = [node for node in found if node.get("Index Name") == BY_PLACE]
        assert not [node for node in found if "Sort" in node["Node Type"]]
        assert scan["Actual Rows"] <= 200
    else:  # only what has the label
        (scan,) = [node for node in found if node.get("Index Name") == BY_LABELS]
        assert scan["Actual Rows"] <= 60


@pytest.mark.parametrize(
    ("selector", "lost"),
    [pytest.param("graph=g-7", BY_LABELS, id="of labels"), pytest.param("env!=test", BY_PLACE, id="of places")],
)
def test_without_its_index_the_same_query_reads_the_whole_table(filled: Filled, selector: str, lost: str) -> None:
    page = Page(parse_selector(selector), "Task", None, None, 100, LATEST)
    with filled.database.superuser() as anyone, anyone.transaction(force_rollback=True):
        anyone.execute(f"DROP INDEX graph.{lost}")
        found = explained(anyone, page)
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in found) > ROWS / 2
