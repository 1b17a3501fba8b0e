"""Reflections, found by what they say; and contracts of inputs, checked for the operator."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer
from tests.integration.gateway.test_log_and_lineage import fill_graph
from tests.integration.gateway.world import OPERATOR, REPORT, RUNNER, SCHEMA, World, sha256

from triplane.domain.events import session_offered

WELL = {"wentWell": ["Found the figures"], "wentBadly": [], "lessons": [], "confidence": 90}
BADLY = {"wentWell": [], "wentBadly": ["The figures contradict each other"], "lessons": ["Ask for units"]}


@pytest.fixture
def alice(apiserver: FakeApiServer) -> str:
    apiserver.grant("alice", "get", "agentsessions", "team")
    return ALICE


async def reflected(world: World, uid: str, document: dict[str, Any], agent: str = "alice-agent") -> None:
    """A session of one run that says this of itself."""
    offer = replace(await world.offer(uid), agent_name=agent)
    await world.backends.log.append([session_offered(offer)])
    run = await world.claimed(uid)
    await run.start()
    digest = await run.put(orjson.dumps(document))
    report = run.report(report=await run.put(REPORT))
    answer = await run.post("finish", {**report, "reflection": digest})
    assert answer.status_code == 200, answer.text


async def search(world: World, query: str = "", caller: str = ALICE) -> dict[str, Any]:
    answer = await world.call("GET", f"/v1/reflections?namespace=team&{query}", caller)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("query", "sessions"),
    [
        pytest.param("", ["s-4", "s-3", "s-2"], id="all, newest first"),
        pytest.param("text=FIGURES", ["s-3", "s-2"], id="by a word"),
        pytest.param("text=figures+units", ["s-3"], id="by several words"),
        pytest.param("minConfidence=50", ["s-2"], id="by confidence"),
        pytest.param("agent=other", ["s-4"], id="by Agent"),
        pytest.param("task=task-t-1&graph=graph-g-1&limit=1", ["s-4"], id="by Task and Graph"),
        pytest.param("agent=nobody", [], id="by an Agent that never was"),
    ],
)
async def test_they_are_found(world: World, alice: str, query: str, sessions: list[str]) -> None:
    await fill_graph(world)
    await reflected(world, "s-2", WELL)
    await reflected(world, "s-3", BADLY)
    await reflected(world, "s-4", {"wentWell": ["Nothing to say"]}, agent="other")
    found = (await search(world, query))["reflections"]
    assert [item["session"]["uid"] for item in found] == sessions


async def test_pages_go_on_where_the_last_one_ended(world: World, alice: str) -> None:
    for number in range(5):
        await reflected(world, f"s-{number}", WELL if number % 2 else BADLY)
    seen: list[str] = []
    before = ""
    for _ in range(9):
        page = await search(world, f"text=found&limit=1{before}")
        seen += [item["session"]["uid"] for item in page["reflections"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert seen == ["s-3", "s-1"]


async def test_what_is_told_of_one(world: World, alice: str) -> None:
    await fill_graph(world)
    await reflected(world, "s-2", WELL)
    (found,) = (await search(world))["reflections"]
    assert found["task"] == {"name": "task-t-1", "uid": "t-1", "gone": True}
    assert (found["agent"]["name"], found["role"], found["run"]) == ("alice-agent", "Producer", 1)
    assert (found["outcome"], found["reason"]) == ("succeeded", "Completed")
    assert (found["wentWell"], found["confidence"], found["source"]) == (["Found the figures"], 90, "harness")


async def test_one_that_was_erased_is_known_and_says_nothing(world: World, alice: str) -> None:
    await reflected(world, "s-1", WELL)
    (found,) = (await search(world))["reflections"]
    await world.backends.content.delete(found["digest"])
    (found,) = (await search(world))["reflections"]
    assert (found["erased"], found["wentWell"]) == (True, [])
    assert (await search(world, "text=figures"))["reflections"] == []


@pytest.mark.parametrize(
    ("query", "caller", "status"),
    [
        pytest.param("namespace=team", RUNNER, 403, id="a runner"),
        pytest.param("namespace=secret", ALICE, 403, id="another namespace"),
        pytest.param("namespace=", ALICE, 422, id="no namespace"),
        pytest.param("", ALICE, 400, id="none said"),
        pytest.param("namespace=team&minConfidence=101", ALICE, 400, id="surer than sure"),
        pytest.param("namespace=team&graph=nothing", ALICE, 404, id="a Graph that never was"),
    ],
)
async def test_who_may_not_ask_what(world: World, alice: str, query: str, caller: str, status: int) -> None:
    assert (await world.call("GET", f"/v1/reflections?{query}", caller)).status_code == status


@pytest.mark.parametrize(
    ("content", "media_type", "schema", "said"),
    [
        pytest.param(b'{"total": 1}', "application/json", SCHEMA, None, id="it meets the contract"),
        pytest.param(b'{"total": "1"}', "application/json", SCHEMA, "/total", id="it breaks the schema"),
        pytest.param(b"{", "application/json", None, "not JSON", id="it is no JSON"),
        pytest.param(b"\xff", "text/plain", None, "not UTF-8", id="it is no text"),
        pytest.param(b"\xff", "application/octet-stream", None, None, id="anything goes"),
        pytest.param(
            b"AKIA" + b"A" * 16, "text/plain", None, None, id="what looks like a secret may go in, if not out"
        ),
        pytest.param(
            b'"' + b"a" * 40 + b'!"', "application/json", {"pattern": "^(a+)+$"}, "more than 3 s", id="a hostile schema"
        ),
    ],
)
async def test_the_operator_has_inputs_checked(
    world: World, content: bytes, media_type: str, schema: dict[str, Any] | None, said: str | None
) -> None:
    digest = await world.put_in("team", content)
    body = {"digest": digest, "mediaType": media_type, "schema": schema}
    answer = await world.call("POST", "/v1/contracts", OPERATOR, json=body)
    assert answer.status_code == 200, answer.text
    problem = answer.json()["problem"]
    assert problem is None if said is None else said in problem


async def test_nobody_else_has_anything_checked_and_what_is_not_there_is_404(world: World, alice: str) -> None:
    body = {"digest": sha256(b"?"), "mediaType": "text/plain"}
    for caller in (RUNNER, alice):
        assert (await world.call("POST", "/v1/contracts", caller, json=body)).status_code == 403
    assert (await world.call("POST", "/v1/contracts", OPERATOR, json=body)).status_code == 404
    assert (await world.call("POST", "/v1/contracts", OPERATOR, json={"digest": "x"})).status_code in (400, 422)
