"""As-run records over HTTP: which runs there were in a time, what took part, and what does not fit."""

from dataclasses import replace
from typing import Any

import pytest
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer
from tests.integration.gateway.test_log_and_lineage import fill_graph
from tests.integration.gateway.world import World

from triplane.domain.events import session_offered


@pytest.fixture
def alice(apiserver: FakeApiServer) -> str:
    apiserver.grant("alice", "get", "agentsessions", "team")
    return ALICE


async def ran(world: World, uid: str, agent: str = "alice-agent") -> None:
    """A session of one run that is at work."""
    offer = replace(await world.offer(uid), agent_name=agent)
    await world.backends.log.append([session_offered(offer)])
    await (await world.claimed(uid)).start()


async def search(world: World, query: str = "", code: int = 200) -> Any:
    answer = await world.call("GET", f"/v1/asrun?namespace=team&{query}", ALICE)
    assert answer.status_code == code, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("query", "sessions"),
    [
        pytest.param("", ["s-3", "s-2", "s-1"], id="all, newest first"),
        pytest.param("agent=other", ["s-3"], id="of an Agent"),
        pytest.param("since=2000-01-01", ["s-3", "s-2", "s-1"], id="since a day"),
        pytest.param("until=2000-01-01T00:00:00Z", [], id="before a time"),
        pytest.param("since=2999-01-01", [], id="in a time to come"),
        pytest.param("task=task-t-1&graph=graph-g-1&limit=1", ["s-3"], id="of a Task in a Graph"),
    ],
)
async def test_runs_are_found(world: World, alice: str, query: str, sessions: list[str]) -> None:
    await fill_graph(world)
    await ran(world, "s-2")
    await ran(world, "s-3", agent="other")
    found = (await search(world, query))["runs"]
    assert [item["session"]["uid"] for item in found] == sessions


async def test_what_is_told_of_one_and_what_is_missing(world: World, alice: str) -> None:
    await fill_graph(world)
    await ran(world, "s-2")
    found = (await search(world))["runs"][0]
    assert (found["run"], found["role"], found["agent"]["name"], found["outcome"]) == (
        1, "Producer", "alice-agent", "running",
    )  # fmt: skip
    assert found["startedAt"] is not None
    # This world appends no permit and observes no session: the record says so instead of looking complete.
    assert "no permit of this run is in the log" in found["problems"]
    assert "the frozen snapshot is not there any more" in found["problems"]


async def test_pages_go_on_where_the_last_one_ended(world: World, alice: str) -> None:
    for number in range(3):
        await ran(world, f"s-{number}")
    seen: list[str] = []
    before = ""
    for _ in range(5):
        page = await search(world, f"limit=1{before}")
        seen += [item["session"]["uid"] for item in page["runs"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert seen == ["s-2", "s-1", "s-0"]


async def test_a_day_that_is_none_is_refused(world: World, alice: str) -> None:
    assert "is no day" in str(await search(world, "since=monday", code=422))


async def test_they_are_for_those_who_may_read_sessions(world: World, apiserver: FakeApiServer) -> None:
    answer = await world.call("GET", "/v1/asrun?namespace=team", ALICE)
    assert answer.status_code == 403
