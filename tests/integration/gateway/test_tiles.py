"""The log for outsiders: checkpoint, tiles, bundles of entries and proofs over HTTP, and who may read them."""

import pytest
from tests.integration.gateway.fake_apiserver import ALICE, BOB, FakeApiServer
from tests.integration.gateway.world import World
from tests.unit.audit.notary import LOG, log_key

from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, parse_checkpoint, sign_checkpoint, verify_checkpoint
from triplane.audit.export import Exporter, export
from triplane.audit.merkle import leaf_hash, subtree_root, verify_consistency
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.notekey import KeyRing
from triplane.audit.subtrees import GrowingTree
from triplane.audit.tlogproof import verify_bundle
from triplane.audit.witness import Accepted, Admitted, admit, judge

SIZE = 300


def body(number: int) -> EventBody:
    namespace = "team" if number % 2 else "other"
    subject = EventSubject("Task", namespace, f"t{number}", f"u{number}")
    return EventBody(f"task.created/u{number}/1", "task.created", "system", "system", subject)


async def signed(world: World, size: int) -> list[bytes]:
    """Append until the log has this size, and publish its checkpoint; the octets of all entries."""
    log, store = world.backends.log, world.backends.checkpoints
    have, _ = await log.head()
    await log.append([body(number) for number in range(have, size)])
    octets = [item.octets for item in await log.query(limit=10_000)]
    tree = GrowingTree()
    for item in octets:
        tree.add(leaf_hash(item))
    await store.keep(tree.completed)
    root = subtree_root([leaf_hash(item) for item in octets])
    await store.publish(sign_checkpoint(Checkpoint(log.origin, size, root), log.origin, [LOG]))
    return octets


def trust(world: World) -> CheckpointTrust:
    origin = world.backends.log.origin
    return CheckpointTrust(origin, KeyRing([log_key(name=origin)]))


@pytest.fixture
def alice(apiserver: FakeApiServer) -> str:
    """May read every Graph."""
    apiserver.grant("alice", "get", "graphs")
    return ALICE


@pytest.fixture
def bob(apiserver: FakeApiServer) -> str:
    """May read the Graphs of one namespace."""
    apiserver.grant("bob", "get", "graphs", "team")
    return BOB


async def reason(world: World, path: str, token: str | None) -> tuple[int, str, str]:
    answer = await world.call("GET", path, token)
    error = answer.json()["error"]
    return answer.status_code, error["reason"], error["message"]


async def test_what_is_served_is_what_an_export_writes(world: World, alice: str) -> None:
    octets = await signed(world, SIZE)
    target = (await world.call("GET", "/log/checkpoint", alice)).content
    files = list(export(Exporter(verify_checkpoint(target, trust(world))), octets))
    assert {file.path for file in files} == {
        "checkpoint", "tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"
    }  # fmt: skip
    for file in files:
        answer = await world.call("GET", f"/log/{file.path}", alice)
        assert (answer.status_code, answer.content) == (200, file.octets), file.path
        kept = "no-cache" if file.path == "checkpoint" else "private, max-age=31536000, immutable"
        assert answer.headers["cache-control"] == kept


async def test_a_tile_of_an_earlier_size_is_still_served(world: World, alice: str) -> None:
    octets = await signed(world, 5)
    before = (await world.call("GET", "/log/tile/entries/000.p/5", alice)).content
    await signed(world, SIZE)
    assert (await world.call("GET", "/log/tile/entries/000.p/5", alice)).content == before
    leaves = b"".join(leaf_hash(item) for item in octets)
    assert (await world.call("GET", "/log/tile/0/000.p/5", alice)).content == leaves


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("tile/0/001.p/45", "lies beyond the 300 entries", id="a wider tile than is signed"),
        pytest.param("tile/0/001", "lies beyond the 300 entries", id="a full tile that is not full yet"),
        pytest.param("tile/entries/002.p/1", "lies beyond the 300 entries", id="a bundle beyond the end"),
        pytest.param("tile/1/000.p/2", "lies beyond the 300 entries", id="a wider tile of level 1"),
        pytest.param("tile/2/000.p/1", "lies beyond the 300 entries", id="a level that is not there yet"),
        pytest.param("tile/63/000", "lies beyond the 300 entries", id="the highest level there is"),
        pytest.param("tile/64/000", "no tile", id="a level that there is not"),
        pytest.param("tile/0/0", "no tile", id="an index of one digit"),
        pytest.param("tile/0/x000/000", "no tile", id="an index in a second spelling"),
        pytest.param("tile/0/000.p/256", "no tile", id="a full tile as a partial one"),
        pytest.param("tile/0/000.p/0", "no tile", id="a tile of nothing"),
        pytest.param("tile/0/000/", "no tile", id="a slash at the end"),
        pytest.param("tile/0/%2e%2e/000", "no tile", id="a way up"),
    ],
)
async def test_what_is_not_there_is_404_and_says_why(world: World, alice: str, path: str, said: str) -> None:
    await signed(world, SIZE)
    status, why, message = await reason(world, f"/log/{path}", alice)
    assert (status, why) == (404, "NotFound")
    assert said in message


async def test_nothing_is_served_that_is_not_signed(world: World, alice: str) -> None:
    octets = await signed(world, 5)
    assert len(octets) == 5
    await world.backends.log.append([body(number) for number in range(5, 9)])
    assert (await reason(world, "/log/tile/entries/000.p/6", alice))[0] == 404
    status, _, message = await reason(world, "/v1/log/proof?seq=7", alice)
    assert (status, "entry 7 lies beyond the checkpoint of 5 entries" in message) == (404, True)


@pytest.mark.parametrize(
    "path", ["/log/checkpoint", "/log/tile/0/000.p/1", "/v1/log/proof?seq=0", "/v1/log/consistency?from=0"]
)
async def test_before_the_first_checkpoint_it_says_so(world: World, alice: str, path: str) -> None:
    assert "no checkpoint yet" in (await reason(world, path, alice))[2]


async def test_who_may_read_what(world: World, alice: str, bob: str, apiserver: FakeApiServer) -> None:
    await signed(world, 20)
    run = await world.claimed()
    for path in ("/log/tile/0/000.p/20", "/log/tile/entries/000.p/20", "/v1/log/proof?seq=3", "/v1/log/proof?seq=4"):
        assert (await world.call("GET", path, alice)).status_code == 200
        assert (await reason(world, path, bob))[:2] == (403, "Forbidden"), "tiles show every tenant"
    for path in ("/log/checkpoint", "/v1/log/consistency?from=5", "/v1/log/proof?seq=3&namespace=team"):
        assert (await world.call("GET", path, bob)).status_code == 200
    for path in ("/v1/log/proof?seq=4&namespace=team", "/v1/log/proof?id=task.created/u4/1&namespace=team"):
        assert (await reason(world, path, bob))[:2] == (404, "NotFound"), "of another namespace: as if not there"
    for path in ("/log/checkpoint", "/log/tile/0/000.p/20", "/v1/log/proof?seq=3", "/v1/log/consistency?from=5"):
        assert (await reason(world, path, None))[0] == 401
        assert (await reason(world, path, run.token))[0] == 403


async def test_a_proof_by_place_and_by_id_holds_without_the_log(world: World, alice: str) -> None:
    octets = await signed(world, 20)
    await signed(world, SIZE)
    for query, size in (("seq=13", SIZE), ("id=task.created/u13/1", SIZE), ("seq=13&size=20", 20)):
        answer = await world.call("GET", f"/v1/log/proof?{query}", alice)
        shown = verify_bundle(answer.content, trust(world))
        assert (shown.index, shown.octets, shown.signed.checkpoint.size) == (13, octets[13], size)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("", 400, id="which entry"),
        pytest.param("seq=1&id=x", 400, id="two entries"),
        pytest.param("seq=-1", 400, id="a place below 0"),
        pytest.param("seq=21", 404, id="beyond the log"),
        pytest.param("id=task.created/nobody/1", 404, id="an unknown id"),
        pytest.param("seq=3&size=19", 404, id="a size that was not signed"),
    ],
)
async def test_a_proof_of_nothing_is_refused(world: World, alice: str, query: str, status: int) -> None:
    await signed(world, 20)
    assert (await world.call("GET", f"/v1/log/proof?{query}", alice)).status_code == status


async def test_growth_is_shown_as_a_witness_is_asked(world: World, alice: str) -> None:
    octets = await signed(world, 20)
    await signed(world, SIZE)
    answer = await world.call("GET", "/v1/log/consistency?from=20", alice)
    request = admit(answer.content, {world.backends.log.origin: trust(world).log})
    note = await world.backends.checkpoints.at(20)
    assert note is not None
    old = parse_checkpoint(note)[0]
    assert isinstance(request, Admitted)
    verify_consistency(20, SIZE, request.proof, old.root, request.checkpoint.root)
    assert isinstance(judge(request, old), Accepted)
    assert old.root == subtree_root([leaf_hash(item) for item in octets])
    for query in ("from=301", "from=20&to=21"):
        assert (await world.call("GET", f"/v1/log/consistency?{query}", alice)).status_code in {404, 422}
