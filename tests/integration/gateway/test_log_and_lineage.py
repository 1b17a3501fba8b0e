"""Reading: entries and streams, journals, resources, lineage; principals."""

import asyncio
import base64
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer
from tests.integration.gateway.world import INPUT, REPORT, RUNNER, Run, World, sha256

from triplane.audit.merkle import leaf_hash
from triplane.cli.gateway import Gateway as Client
from triplane.cli.lineage import find
from triplane.domain.events import session_offered
from triplane.domain.provenance import Gathered
from triplane.gateway import log
from triplane.ports import Edge, ResourceRecord


@pytest.fixture
def alice(apiserver: FakeApiServer) -> str:
    for verb, resource in (
        ("get", "graphs"),
        ("get", "agentsessions"),
        ("get", "artifacts"),
        ("list", "artifacts"),
    ):
        apiserver.grant("alice", verb, resource)
    return ALICE


async def test_entries_carry_octets_that_hash_to_their_leaf(world: World, alice: str) -> None:
    await world.started()
    found = (await world.call("GET", "/v1/log/entries?uid=s-1", alice)).json()["entries"]
    assert [item["entry"]["type"] for item in found] == ["run.claimed", "run.started"]
    for item in found:
        octets = base64.b64decode(item["octets"])
        assert leaf_hash(octets).hex() == item["leafHash"]
        assert orjson.loads(octets) == item["entry"]
    head = (await world.call("GET", "/v1/log/head", alice)).json()
    assert (head["size"], head["head"]) == (found[-1]["seq"] + 1, found[-1]["leafHash"])
    assert head["origin"] == world.backends.log.origin


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("type=run.started", ["run.started/s-1/1"], id="by type"),
        pytest.param(
            "type=run.started,run.claimed",
            ["run.claimed/s-1/1", "run.started/s-1/1"],
            id="by several types",
        ),
        pytest.param("kind=AgentSession&limit=1", ["run.claimed/s-1/1"], id="limited"),
        pytest.param("kind=AgentSession&newest=true&limit=1", ["run.started/s-1/1"], id="the newest"),
        pytest.param("namespace=other", [], id="another namespace"),
        pytest.param("after=2&kind=AgentSession", ["run.started/s-1/1"], id="after a sequence"),
    ],
)
async def test_entries_can_be_chosen(world: World, alice: str, query: str, expected: list[str]) -> None:
    await world.started()
    found = (await world.call("GET", f"/v1/log/entries?{query}", alice)).json()["entries"]
    assert [item["entry"]["id"] for item in found] == expected


async def test_a_large_answer_is_cut_and_says_where_it_goes_on(
    world: World, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await world.offer("s-9", permit=False)
    await world.backends.log.append(
        [session_offered(replace(offer, session_uid=f"s-{number + 20}")) for number in range(20)]
    )
    whole = [item.seq for item in await world.backends.log.query(limit=1000)]
    one = len((await world.backends.log.query(after=whole[-2]))[0].octets)
    monkeypatch.setattr(log, "ANSWER_OCTETS", 3 * one)
    monkeypatch.setattr(log, "STEP", 2)
    monkeypatch.setattr(world.backends.log, "query", bounded := Bounded(world.backends.log.query))
    for newest in (False, True):
        answers, seen, place = 0, list[int](), ""
        while True:
            answer = await world.call("GET", f"/v1/log/entries?newest={newest}{place}", alice)
            page = answer.json()
            answers += 1
            seen += [item["seq"] for item in page["entries"]]
            assert sum(len(base64.b64decode(item["octets"])) for item in page["entries"]) < 4 * one
            if "next" not in page:
                break
            place = f"&{'before' if newest else 'after'}={page['next']}"
        assert seen == (whole[::-1] if newest else whole)
        assert answers > 5
    assert bounded.most == 2, "no more than a step is in memory before it is counted"
    few = (await world.call("GET", "/v1/log/entries?limit=2", alice)).json()
    assert ([item["seq"] for item in few["entries"]], "next" in few) == (whole[:2], False), "that was all asked for"


async def test_the_commands_client_goes_on_where_an_answer_was_cut(
    world: World, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await world.offer("s-9", permit=False)
    await world.backends.log.append(
        [session_offered(replace(offer, session_uid=f"s-{number + 20}")) for number in range(20)]
    )
    whole = [item.seq for item in await world.backends.log.query(limit=1000)]
    monkeypatch.setattr(log, "ANSWER_OCTETS", 1)

    def read(**query: Any) -> list[int]:
        with Client(world.url, alice) as opened:
            return [item["seq"] for item in opened.entries(**query)]

    assert await asyncio.to_thread(read) == whole
    assert await asyncio.to_thread(read, newest="true", limit=5) == whole[::-1][:5]
    assert await asyncio.to_thread(read, after=whole[3], limit=7) == whole[4:11]


class Bounded:
    """How many entries were asked of the store at once."""

    def __init__(self, query: Any) -> None:
        self._query = query
        self.most = 0

    async def __call__(self, *arguments: Any, limit: int, **options: Any) -> Any:
        self.most = max(self.most, limit)
        return await self._query(*arguments, limit=limit, **options)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "after=-2", "limit=many", "typ=run.started", "kind=task", "kind="]
)
async def test_a_malformed_query_is_400_and_names_the_parameter(world: World, alice: str, query: str) -> None:
    answer = await world.call("GET", f"/v1/log/entries?{query}", alice)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "Malformed")
    assert query.split("=", maxsplit=1)[0] in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["typ=run.started", "limit=1", "kind=task"])
async def test_a_malformed_stream_is_400_and_names_the_parameter(world: World, alice: str, query: str) -> None:
    answer = await world.call("GET", f"/v1/log/stream?{query}", alice)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "Malformed")
    assert f"query.{query.split('=', maxsplit=1)[0]}: " in answer.json()["error"]["message"]


async def test_the_stream_brings_old_entries_and_then_new_ones(world: World, alice: str) -> None:
    run = await world.started()
    headers = {"Authorization": f"Bearer {alice}"}
    url = f"{world.url}/v1/log/stream?kind=AgentSession"
    async with asyncio.timeout(10), world.client.stream("GET", url, headers=headers) as answer:
        lines = answer.aiter_lines()
        got = [orjson.loads(await anext(lines))["entry"]["type"] for _ in range(2)]
        await run.record(1, {"text": "new"})
        got.append(orjson.loads(await anext(lines))["entry"]["type"])
    assert got == ["run.claimed", "run.started", "run.recorded"]


async def test_the_process_stops_quickly_with_streams_and_polls_open(world: World, alice: str) -> None:
    await world.started()
    headers = {"Authorization": f"Bearer {alice}"}
    polling = asyncio.create_task(world.poll(wait=30))
    begun = asyncio.Event()

    async def follow() -> None:
        async with world.client.stream("GET", f"{world.url}/v1/log/stream", headers=headers) as answer:
            async for _ in answer.aiter_lines():
                begun.set()

    following = asyncio.create_task(follow())
    await begun.wait()
    stopped = time.monotonic()
    world.stop()
    await asyncio.gather(polling, following)
    assert polling.result().status_code == 204
    assert time.monotonic() - stopped < 1.5


async def test_a_journal_is_followed_to_the_end_of_its_run(world: World, alice: str) -> None:
    run = await world.started()
    await run.record(1, {"text": "one"}, {"text": "two"})
    headers = {"Authorization": f"Bearer {alice}"}
    url = f"{world.url}/v1/sessions/s-1/journal?run=1&follow=true&after=1.1.1"
    async with asyncio.timeout(20), world.client.stream("GET", url, headers=headers) as answer:
        lines = answer.aiter_lines()
        got = [orjson.loads(await anext(lines))["id"]]
        await run.record(2, {"text": "three"})
        got.append(orjson.loads(await anext(lines))["id"])
        await run.finish(report=REPORT)
        assert [line async for line in lines] == []
    assert got == ["1.1.2", "1.2.1"]


async def test_a_session_shows_its_runs_and_results(world: World, alice: str) -> None:
    run = await world.started()
    await run.finish(report=REPORT)
    shown = (await world.call("GET", "/v1/sessions/s-1", alice)).json()
    assert shown["runs"][0]["result"]["outputs"][0]["digest"] == sha256(REPORT)
    assert shown["runs"][0]["state"] == "finished"
    assert shown["agentName"] == "alice-agent"
    missing = await world.call("GET", "/v1/sessions/nobody", alice)
    assert missing.status_code == 404


async def test_a_principal_gets_one_id_and_one_entry_without_the_name(world: World) -> None:
    body = {"username": "alice@example.com", "uid": "u-1"}
    first = await world.call("POST", "/v1/principals", json=body)
    again = await world.call("POST", "/v1/principals", json=body)
    assert first.json() == again.json()
    made = first.json()["id"]
    assert await world.logged(made) == [f"principal.created/{made}/0"]
    recorded = await world.backends.log.get(f"principal.created/{made}/0")
    assert recorded is not None
    assert b"alice" not in recorded.octets
    (digest,) = recorded.entry["blobs"]
    document = orjson.loads(await world.blob(digest))
    assert document["username"] == "alice@example.com"
    assert len(document["salt"]) >= 32
    assert (await world.call("POST", "/v1/principals", RUNNER, json=body)).status_code == 403


async def test_an_erased_name_does_not_come_back(world: World) -> None:
    body = {"username": "bob", "uid": "u-2"}
    made = (await world.call("POST", "/v1/principals", json=body)).json()["id"]
    entry = (await world.backends.log.get(f"principal.created/{made}/0")).entry  # type: ignore[union-attr]
    await world.backends.content.delete(entry["blobs"][0])
    assert (await world.call("POST", "/v1/principals", json=body)).json()["id"] == made
    assert not await world.backends.content.exists(entry["blobs"][0])


def record(kind: str, uid: str, spec: dict[str, object], *, seq: int, **extra: object) -> ResourceRecord:
    return ResourceRecord(uid, kind, "team", f"{kind.lower()}-{uid}", 1, {}, spec, "p-1", seq, **extra)  # type: ignore[arg-type]


async def fill_graph(world: World) -> None:
    """What the operator writes of a reviewed artifact whose objects have been deleted since."""
    run = await world.started()
    await run.finish(report=REPORT)
    digest, graph = sha256(REPORT), world.backends.graph
    ref = {"name": "x", "uid": "t-1"}
    snapshot = [{"role": "agent", "name": "alice-agent", "uid": "a-1", "generation": 1, "basis": "content"}]
    for item in (
        record("Graph", "g-1", {}, seq=2, gone=True),
        record("Node", "n-1", {}, seq=3, gone=True),
        record("Task", "t-1", {}, seq=4, gone=True),
        record("Agent", "a-1", {}, seq=5),
        record("Agent", "a-2", {}, seq=6),
        record(
            "AgentSession",
            "s-1",
            {"taskRef": ref, "agentRef": {"name": "a", "uid": "a-1"}, "snapshot": snapshot},
            seq=7,
            gone=True,
        ),
        record(
            "Artifact",
            "r-1",
            {
                "name": "report",
                "digest": digest,
                "mediaType": "text/markdown",
                "size": len(REPORT),
                "run": 1,
                "round": 1,
                "taskRef": ref,
                "sessionRef": {"name": "s", "uid": "s-1"},
                "materials": [{"name": "in", "digest": sha256(INPUT)}],
            },
            seq=8,
            gone=True,
        ),
        record("Artifact", "r-0", {"digest": sha256(INPUT), "taskRef": {"name": "y", "uid": "t-0"}}, seq=1),
        record(
            "Review",
            "v-1",
            {
                "verdict": "Approve",
                "round": 1,
                "subjects": [{"name": "report", "digest": digest}],
                "agentRef": {"name": "b", "uid": "a-2"},
                "sessionRef": {"name": "rs", "uid": "s-9"},
            },
            seq=9,
        ),
    ):
        await graph.create(item)
    await graph.link(
        [
            Edge("g-1", "owns", "n-1", 3),
            Edge("n-1", "owns", "t-1", 4),
            Edge("t-1", "owns", "s-1", 7),
            Edge("s-1", "produces", "r-1", 8, {"run": 1, "round": 1}),
            Edge("r-1", "produces", digest, 8, {"output": "report"}),
            Edge("r-0", "produces", sha256(INPUT), 1, {"output": "in"}),
            Edge("s-1", "consumes", sha256(INPUT), 7, {"name": "in"}),
            Edge("v-1", "reviews", "r-1", 9, {"verdict": "Approve", "digest": digest}),
        ]
    )


async def around(world: World, query: str, token: str) -> dict[str, Any]:
    """What the gateway streams of a lineage, put together."""
    answer = await world.call("GET", f"/v1/provenance/{query}", token)
    assert answer.status_code == 200, answer.text
    made = Gathered()
    for line in answer.text.splitlines():
        made.add(orjson.loads(line))
    return made.document()


@pytest.mark.parametrize("subject", [pytest.param(sha256(REPORT), id="by digest"), pytest.param("r-1", id="by UID")])
async def test_lineage_leads_from_the_digest_to_everything_behind_it(world: World, alice: str, subject: str) -> None:
    await fill_graph(world)
    (found,) = (await world.call("GET", f"/v1/lineage/{subject}", alice)).json()["lineage"]
    assert found["digest"] == sha256(REPORT)
    assert found["artifact"]["gone"] is True
    assert [found[part]["uid"] for part in ("graph", "node", "task", "session")] == ["g-1", "n-1", "t-1", "s-1"]
    assert found["session"]["agent"] == {"name": "agent-a-1", "uid": "a-1", "generation": 1, "principal": "p-1"}
    assert (found["run"]["run"], found["run"]["outcome"], found["run"]["isolated"]) == (1, "succeeded", True)
    assert [(item["name"], item["digest"]) for item in found["inputs"]] == [("in", sha256(INPUT))]
    assert [item["uid"] for item in found["inputs"][0]["producedBy"]] == ["r-0"]
    (review,) = found["reviews"]
    assert (review["verdict"], review["bound"], review["reviewer"]["uid"]) == ("Approve", True, "a-2")
    assert found["asRun"][0] == {
        "role": "agent",
        "name": "alice-agent",
        "uid": "a-1",
        "generation": 1,
        "basis": "content",
        "known": "frozen",
    }


async def test_the_command_finds_a_digest_for_who_may_read_one_namespace_only(
    world: World, apiserver: FakeApiServer
) -> None:
    apiserver.grant("alice", "get", "artifacts", "team")
    await fill_graph(world)

    def read() -> list[dict[str, Any]]:
        with Client(world.url, ALICE) as opened:
            return find(opened, sha256(REPORT), "team")

    assert [item["artifact"]["uid"] for item in await asyncio.to_thread(read)] == ["r-1"]


async def test_an_unknown_artifact_has_no_lineage(world: World, alice: str) -> None:
    answer = await world.call("GET", f"/v1/lineage/{sha256(b'?')}", alice)
    assert answer.status_code == 404


async def test_resources_are_listed_with_their_incarnations(world: World, alice: str) -> None:
    await fill_graph(world)
    found = (await world.call("GET", "/v1/resources?kind=Artifact", alice)).json()["resources"]
    assert {item["uid"] for item in found} == {"r-0", "r-1"}
    unknown = await world.call("GET", "/v1/resources?kind=Pod", alice)
    assert unknown.status_code == 422


async def test_resources_come_in_pages_also_where_nobody_asked_for_that(
    world: World, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one question loads every resource there ever was."""
    asked: list[int | None] = []
    query = world.backends.graph.query_by_labels

    async def noting(*arguments: Any, limit: int | None = None, **options: Any) -> Any:
        asked.append(limit)
        return await query(*arguments, limit=limit, **options)

    monkeypatch.setattr(world.backends.graph, "query_by_labels", noting)
    answer = (await world.call("GET", "/v1/resources?kind=Artifact", alice)).json()
    assert (asked, answer["next"]) == ([1000], None)


async def test_resources_are_chosen_by_labels_and_come_in_pages(world: World, alice: str) -> None:
    for number, team in enumerate(("red", "blue", "red", "red")):
        kept = record("Artifact", f"r-{number}", {}, seq=number, gone=number == 0)
        await world.backends.graph.create(replace(kept, labels={"team": team}))
    seen, after = [], None
    for _ in range(3):
        query = "kind=Artifact&namespace=team&selector=team%20notin%20(blue)&limit=2"
        page = (await world.call("GET", f"/v1/resources?{query}" + (f"&after={after}" if after else ""), alice)).json()
        seen += [(item["uid"], item["gone"]) for item in page["resources"]]
        if (after := page["next"]) is None:
            break
    assert seen == [("r-0", True), ("r-2", False), ("r-3", False)]
    for query in ("selector=a%20in%20b", "after=nonsense", "limit=0"):
        wrong = await world.call("GET", f"/v1/resources?kind=Artifact&{query}", alice)
        assert wrong.status_code in (400, 422), query


async def test_composed_inputs_show_which_field_came_from_where(world: World, alice: str) -> None:
    await fill_graph(world)
    source = sha256(b"score")
    part = {"task": "t-1", "input": "in", "merge": "JsonObject", "step": "score", "output": "report", "path": "/total"}
    await world.backends.graph.link(
        [
            Edge(sha256(INPUT), "derivedFrom", source, 9, {**part, "to": "/a", "taskUid": "t-0"}, "t-1/1/in/1"),
            Edge(sha256(INPUT), "derivedFrom", source, 9, {**part, "task": "t-9"}, "t-9/1/in/1"),
        ]
    )
    (found,) = (await world.call("GET", "/v1/lineage/r-1", alice)).json()["lineage"]
    (composed,) = found["inputs"][0]["composedOf"]
    assert (composed["step"], composed["path"], composed["to"], composed["digest"]) == ("score", "/total", "/a", source)
    up = await around(world, "r-1", alice)
    parts = [edge["data"] for edge in up["edges"] if edge["kind"] == "derivedFrom"]
    assert [part["task"] for part in parts] == ["t-1"], "an input of a Task that is not known is not shown"


async def test_sessions_tell_who_worked_where_and_what_it_cost(world: World, alice: str) -> None:
    await fill_graph(world)
    offer = await world.offer("s-2", permit=False)
    for uid in ("s-1", "s-2", "s-3"):
        await world.backends.log.append([session_offered(replace(offer, session_uid=uid, name=f"session-{uid}"))])
    found = (await world.call("GET", "/v1/sessions?namespace=team", alice)).json()["sessions"]
    assert [(item["uid"], item["runs"]) for item in found] == [("s-3", 0), ("s-2", 0), ("s-1", 0)]
    run = await world.started("s-2")
    await run.finish(report=REPORT)
    query = "/v1/sessions?namespace=team&agent=alice-agent&graph=graph-g-1&task=task-t-1&limit=1"
    (last,) = (await world.call("GET", query, alice)).json()["sessions"]
    assert last["task"] == {"name": "task-t-1", "uid": "t-1", "gone": True}
    assert (last["uid"], last["runs"], last["outcome"], last["running"]) == ("s-2", 1, "succeeded", False)
    assert (last["tokens"], last["costMinorUnits"], last["graph"]["name"]) == (3, 3, "graph-g-1")
    for query, status in (
        ("namespace=team&agent=nobody", 200),
        ("namespace=team&graph=nothing", 404),
        ("namespace=", 422),
        ("", 400),
        ("namespace=team&limit=0", 400),
    ):
        answer = await world.call("GET", f"/v1/sessions?{query}", alice)
        assert answer.status_code == status, query
        assert answer.json().get("sessions", []) == []


async def test_sessions_of_a_namespace_are_for_those_who_may_read_them(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "get", "agentsessions", "team")
    assert (await world.call("GET", "/v1/sessions?namespace=team", ALICE)).status_code == 200
    assert (await world.call("GET", "/v1/sessions?namespace=secret", ALICE)).status_code == 403
    assert (await world.call("GET", "/v1/sessions?namespace=team", RUNNER)).status_code == 403


async def test_health_needs_no_token_and_says_nothing_of_the_data(world: World) -> None:
    assert (await world.call("GET", "/healthz", None)).json() == {"alive": True}
    assert (await world.call("GET", "/readyz", None)).json()["ready"] is True
    answer = await world.call("GET", "/v1/nowhere", None)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "NotFound")
    wrong = await world.call("PATCH", "/v1/claims", None)
    assert (wrong.status_code, wrong.json()["error"]["reason"]) == (405, "MethodNotAllowed")
    with pytest.raises(httpx.HTTPError):
        async with httpx.AsyncClient() as client:
            await client.get(world.url.replace("127.0.0.1", "127.0.0.2") + "/healthz")


async def _recorded_at(run: Run, said: str) -> httpx.Response:
    record = {"type": "message", "occurredAt": said, "payload": {"text": "hello"}}
    return await run.post("records", {"sequence": 1, "records": [record]})


@pytest.mark.parametrize("said", ["1999-01-01T00:00:00Z", "2099-01-01T00:00:00+02:00", "0001-01-01T00:00:00+14:00"])
async def test_a_time_outside_of_its_run_is_warned_of_and_readers_see_the_servers(
    said: str, world: World, alice: str
) -> None:
    run = await world.started()
    for _ in range(2):  # a repeat is answered alike, and stores the same
        answer = await _recorded_at(run, said)
        assert answer.status_code == 200
        assert "1 records say times outside of their run" in answer.json()["warning"]
    assert orjson.loads(await world.blob(answer.json()["digest"]))["records"][0]["occurredAt"] == said
    shown = orjson.loads((await world.call("GET", "/v1/sessions/s-1/journal", alice)).content)["occurredAt"]
    assert abs((datetime.fromisoformat(shown) - datetime.now(UTC)).total_seconds()) < 60


async def test_a_time_inside_of_its_run_is_shown_as_the_host_says(world: World, alice: str) -> None:
    run = await world.started()
    said = datetime.now(UTC).isoformat(timespec="milliseconds")
    assert "warning" not in (await _recorded_at(run, said)).json()
    assert orjson.loads((await world.call("GET", "/v1/sessions/s-1/journal", alice)).content)["occurredAt"] == said
