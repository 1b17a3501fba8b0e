"""Lineage as a stream: which way it goes, where it ends, of when it is, and that a slow reader harms nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import httpx
import orjson
import pytest
from tests.integration.gateway.fake_apiserver import ALICE, BOB, FakeApiServer
from tests.integration.gateway.test_log_and_lineage import alice, around, fill_graph, record
from tests.integration.gateway.world import INPUT, REPORT, RUNNER, World, sha256

from triplane.domain.asrun import moment
from triplane.domain.events import session_offered
from triplane.gateway import lineage, provenance, turns
from triplane.ports import Edge, GraphChange

__all__ = ["alice"]
MANY = 8_000
LONG = "x" * 1000


async def test_provenance_goes_up_down_and_stays_in_the_namespace(world: World, alice: str) -> None:
    await fill_graph(world)
    up = await around(world, "r-1", alice)
    assert {node["id"]: node["depth"] for node in up["nodes"]} == {
        "r-1": 0, "s-1": -1, "v-1": -1, "t-1": -2, "n-1": -3, "g-1": -4, sha256(INPUT): -2, "r-0": -3,
    }  # fmt: skip
    assert {(edge["source"], edge["kind"], edge["target"]) for edge in up["edges"]} >= {
        ("s-1", "produces", "r-1"), ("v-1", "reviews", "r-1"), ("s-1", "consumes", sha256(INPUT)),
    }  # fmt: skip
    assert (up["start"], up["way"], up["depth"], up["asOf"], up["truncated"]) == (["r-1"], "up", 64, None, False)
    near = await around(world, "r-1?depth=1", alice)
    assert [node["id"] for node in near["nodes"]] == ["r-1", "s-1", "v-1"]
    down = await around(world, f"{sha256(INPUT)}?way=down", alice)
    assert {node["id"] for node in down["nodes"]} == {sha256(INPUT), "s-1", "r-1", sha256(REPORT), "v-1"}
    both = await around(world, "s-1?way=both&depth=1", alice)
    assert {node["id"]: node["depth"] for node in both["nodes"]} == {"s-1": 0, "t-1": -1, sha256(INPUT): -1, "r-1": 1}


async def test_provenance_does_not_lead_out_of_a_namespace_one_may_read(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "get", "artifacts", "team")
    graph, digest = world.backends.graph, sha256(b"shared")
    for uid, namespace in (("mine", "team"), ("theirs", "secret")):
        kept = record("Artifact", uid, {"digest": digest, "taskRef": {"name": "t", "uid": "t"}}, seq=1)
        await graph.create(replace(kept, namespace=namespace))
        await graph.link([Edge(uid, "produces", digest, 1)])
    seen = await around(world, f"{digest}?namespace=team", ALICE)
    assert {node["id"] for node in seen["nodes"]} == {digest, "mine"}
    everywhere = await world.call("GET", f"/v1/provenance/{digest}", ALICE)
    assert (everywhere.status_code, "namespace=" in everywhere.text) == (403, True)
    assert (await world.call("GET", "/v1/provenance/theirs", ALICE)).status_code == 403
    unknown = await world.call("GET", f"/v1/provenance/{sha256(b'?')}?namespace=team", ALICE)
    assert unknown.status_code == 404


@pytest.mark.parametrize("path", ["lineage", "provenance"])
async def test_nobody_learns_what_others_keep_nor_where(world: World, apiserver: FakeApiServer, path: str) -> None:
    """A digest is a name anybody can make of a file: who asks must not be told that another tenant has it."""
    apiserver.grant("alice", "get", "artifacts", "team")
    digest = sha256(b"secret")
    kept = record("Artifact", "theirs", {"digest": digest, "taskRef": {"name": "t", "uid": "t"}}, seq=1)
    await world.backends.graph.create(replace(kept, namespace="secret"))
    await world.backends.graph.link([Edge("theirs", "produces", digest, 1)])
    for there, absent in ((digest, sha256(b"?")), ("theirs", "nobodys"), (f"{digest}?namespace=secret", None)):
        told = await world.call("GET", f"/v1/{path}/{there}", ALICE)
        assert told.status_code == 403
        if absent:
            unknown = await world.call("GET", f"/v1/{path}/{absent}", ALICE)
            assert (told.status_code, told.json()) == (unknown.status_code, unknown.json())
            assert "secret" not in told.text
    own = await world.call("GET", f"/v1/{path}/{digest}?namespace=team", ALICE)
    unknown = await world.call("GET", f"/v1/{path}/{sha256(b'?')}?namespace=team", ALICE)
    assert (own.status_code, own.text) == (404, unknown.text.replace(sha256(b"?"), digest))


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("lineage/{}", RUNNER),
        ("provenance/{}", RUNNER),
        ("lineage/{}", BOB),
        ("provenance/{}", BOB),
        ("provenance/{}?asOf=2001-01-01", BOB),
        ("lineage/{}?namespace=team", BOB),
        ("provenance/{}?namespace=team&asOf=2001-01-01", BOB),
    ],
)
async def test_nothing_is_looked_up_for_who_may_not_read(
    world: World, apiserver: FakeApiServer, monkeypatch: pytest.MonkeyPatch, path: str, token: str
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the store was asked")

    for store, names in (
        (world.backends.graph, ("traverse", "edges", "edges_of", "get_many", "get")),
        (world.backends.log, ("head", "query")),
    ):
        for name in names:
            monkeypatch.setattr(store, name, asked)
    answer = await world.call("GET", "/v1/" + path.format(sha256(b"x")), token)
    assert answer.status_code == 403, answer.text


async def test_a_digest_that_too_many_made_is_not_loaded(
    world: World, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "_MOST_TOUCHING", 5)
    digest = sha256(b"")
    records = [record("Artifact", f"a-{n}", {"digest": digest}, seq=1) for n in range(5)]
    edges = [Edge(f"a-{n}", "produces", digest, n + 1) for n in range(5)]
    await world.backends.graph.apply(GraphChange(tuple(records[:4]), tuple(edges[:4])))
    found = (await world.call("GET", f"/v1/lineage/{digest}", alice)).json()["lineage"]
    assert [item["artifact"]["uid"] for item in found] == ["a-3", "a-2", "a-1", "a-0"], "newest first"
    await world.backends.graph.apply(GraphChange(tuple(records[4:]), tuple(edges[4:])))
    for path in (f"lineage/{digest}", f"lineage/{digest}?namespace=team", f"provenance/{digest}"):
        refused = await world.call("GET", f"/v1/{path}", alice)
        assert (refused.status_code, "over 5 things" in refused.text) == (422, True), path


async def test_a_lineage_comes_nearest_first_and_says_when_it_was_cut_off(world: World, alice: str) -> None:
    await fill_graph(world)
    lines = [orjson.loads(line) for line in (await world.call("GET", "/v1/provenance/r-1", alice)).text.splitlines()]
    assert [next(iter(line)) for line in lines[:2]] == ["walk", "node"]
    assert lines[-1] == {"end": {"nodes": 8, "truncated": False}}
    depths = [-line["node"]["depth"] for line in lines if "node" in line]
    assert depths == sorted(depths)
    for limit in (1, 2, 6, 7, 8):
        cut = await around(world, f"r-1?limit={limit}", alice)
        assert (len(cut["nodes"]), cut["truncated"]) == (min(limit, 7) + 1, limit < 7)
        there = {node["id"] for node in cut["nodes"]}
        assert all({edge["source"], edge["target"]} <= there for edge in cut["edges"])
    assert (await world.call("GET", "/v1/provenance/r-1?limit=0", alice)).status_code == 400


async def test_a_lineage_can_be_asked_for_as_it_was(world: World, alice: str) -> None:
    await fill_graph(world)
    offer = await world.offer("s-9", permit=False)
    for number in range(10):
        await world.backends.log.append([session_offered(replace(offer, session_uid=f"s-{number + 20}"))])
    size, _ = await world.backends.log.head()
    assert size > 10
    then = await around(world, "s-1?way=down&asOf=7", alice)
    assert [node["id"] for node in then["nodes"]] == ["s-1"]
    assert then["asOf"] == 7
    now = await around(world, "s-1?way=down&asOf=8", alice)
    assert {node["id"] for node in now["nodes"]} == {"s-1", "r-1", sha256(REPORT)}
    listed = (await world.call("GET", "/v1/resources?kind=Artifact&asOf=7", alice)).json()["resources"]
    assert {item["uid"] for item in listed} == {"r-0"}
    assert (await world.call("GET", "/v1/provenance/r-1?asOf=7", alice)).status_code == 404
    late = await world.call("GET", f"/v1/provenance/r-1?asOf={size}", alice)
    assert (late.status_code, f"the log ends with entry {size - 1}" in late.text) == (422, True)
    wrong = await world.call("GET", "/v1/provenance/r-1?asOf=yesterday", alice)
    assert (wrong.status_code, "is no day" in wrong.text) == (422, True)


async def test_a_time_means_the_last_entry_up_to_it(world: World, alice: str) -> None:
    await fill_graph(world)
    offer = await world.offer("s-9", permit=False)
    for number in range(20):
        await world.backends.log.append([session_offered(replace(offer, session_uid=f"s-{number + 20}"))])
    entries = await world.backends.log.query(limit=1000)
    times = [moment(item.entry["time"]) for item in entries]
    for time in (times[8], times[13], times[-1] + timedelta(days=1)):
        text = time.isoformat().replace("+00:00", "Z")
        found = await around(world, f"s-1?asOf={text}", alice)
        assert found["asOf"] == max(seq for seq, when in enumerate(times) if when <= time)
    before = await world.call("GET", "/v1/provenance/s-1?asOf=2001-01-01", alice)
    assert before.status_code == 404, "nothing was there"


@asynccontextmanager
async def unread(world: World, token: str) -> AsyncIterator[httpx.Response]:
    """A lineage that was asked for, and of which nothing is taken."""
    url = f"{world.url}/v1/provenance/big?way=down&limit={MANY}"
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as client,
        client.stream("GET", url, headers={"Authorization": f"Bearer {token}"}) as answer,
    ):
        assert answer.status_code == 200
        yield answer


@pytest.fixture
async def big(world: World, apiserver: FakeApiServer, alice: str) -> World:
    """A lineage larger than what a connection holds."""
    apiserver.grant("alice", "get", "tasks")
    records = [record("Graph", "big", {}, seq=1)] + [record("Task", f"big-{n}-{LONG}", {}, seq=1) for n in range(MANY)]
    edges = tuple(Edge("big", "owns", f"big-{n}-{LONG}", 1) for n in range(MANY))
    await world.backends.graph.apply(GraphChange(tuple(records), edges))
    return world


async def has_turn(big: World, token: str) -> None:
    """Wait until this person may walk again."""
    async with asyncio.timeout(60):
        while (await big.call("GET", f"/v1/provenance/big-1-{LONG}", token)).status_code != 200:
            await asyncio.sleep(0.05)


@pytest.fixture
def crowd(apiserver: FakeApiServer) -> list[str]:
    """As many people as there are places, who may read what alice may."""
    for number in range(turns.WALKS):
        apiserver.users[f"token-{number}"] = f"person-{number}"
        for resource in ("graphs", "artifacts", "tasks"):
            apiserver.grant(f"person-{number}", "get", resource)
    return [f"token-{number}" for number in range(turns.WALKS)]


async def test_slow_readers_are_cut_off_and_harm_nobody(
    big: World, alice: str, crowd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(turns, "TURN_SECONDS", 60.0)
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(unread(big, token)) for token in crowd]
        assert (await big.call("GET", "/v1/log/head", alice)).status_code == 200, "others are served"
        whole = await asyncio.wait_for(around(big, f"big-1-{LONG}", alice), 60)
        assert {node["id"] for node in whole["nodes"]} == {f"big-1-{LONG}", "big"}, "and get their turn"
        for token in crowd:
            await has_turn(big, token)  # theirs ended: they were cut off
        for answer in slow:
            lines = [line async for line in answer.aiter_lines()]
            assert 2 < len(lines) < 2 * MANY
            assert "end" not in orjson.loads(lines[-1]), "what was cut off does not say that it is whole"


async def test_one_slow_reader_has_one_turn_and_leaves_the_others_theirs(
    big: World, alice: str, crowd: list[str]
) -> None:
    async with unread(big, alice):
        for _ in range(5):
            refused = await big.call("GET", f"/v1/provenance/big-1-{LONG}", alice)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "TooManyWalks")
        answer = await big.call("GET", f"/v1/provenance/big-1-{LONG}", crowd[0])
        assert answer.status_code == 200, "somebody else is not kept waiting"
    await has_turn(big, alice)


async def test_without_patience_s_end_slow_readers_would_keep_all_turns(
    big: World, alice: str, crowd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PATIENCE_SECONDS", 3600.0)
    monkeypatch.setattr(turns, "TURN_SECONDS", 1.0)
    async with AsyncExitStack() as stack:
        for token in crowd:
            await stack.enter_async_context(unread(big, token))
        refused = await big.call("GET", f"/v1/provenance/big-1-{LONG}", alice)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "ask again" in refused.text


async def test_a_fast_reader_gets_all_of_a_large_lineage(big: World, alice: str) -> None:
    found = await around(big, f"big?way=down&limit={MANY}", alice)
    assert (len(found["nodes"]), len(found["edges"]), found["truncated"]) == (MANY + 1, MANY, False)
