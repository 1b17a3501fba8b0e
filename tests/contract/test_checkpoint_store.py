"""``CheckpointStore``: one suite, every backend."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.conftest import drop_database, new_database
from tests.contract.test_event_log import body
from tests.unit.audit.notary import NOW, WITNESSES, signer_of

from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import Checkpoint, add_signatures, parse_checkpoint, sign_checkpoint
from triplane.audit.merkle import (
    Node,
    consistency_plan,
    inclusion_plan,
    leaf_hash,
    root_plan,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)
from triplane.audit.note import cosign, parse_note
from triplane.audit.subtrees import GrowingTree
from triplane.errors import Conflict, InvalidInput, InvalidNote, InvalidProof
from triplane.ports import CheckpointStore, EventLog

KEY = signer_of("the log")


@dataclass
class World:
    """A log and its checkpoints."""

    log: EventLog
    store: CheckpointStore

    async def grow(self, size: int) -> list[bytes]:
        """Append until the log has this size, and keep its subtrees; every leaf hash."""
        have, _ = await self.log.head()
        if size > have:
            await self.log.append([body(n) for n in range(have, size)])
        leaves = [leaf_hash(item.octets) for item in await self.log.query(limit=10_000)]
        tree = GrowingTree()
        for leaf in leaves:
            tree.add(leaf)
        await self.store.keep(tree.completed)
        return leaves

    def note(self, size: int, root: bytes = bytes(32)) -> bytes:
        """A signed checkpoint that says so."""
        return sign_checkpoint(Checkpoint(self.log.origin, size, root), self.log.origin, [KEY])


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        shared = MemoryLog.create()
        yield World(MemoryEventLog(shared), MemoryCheckpointStore(shared))
        return
    database = new_database(request.getfixturevalue("postgres_server"))
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="checkpoints")
    await open_pool(pool)
    yield World(log, PostgresCheckpointStore(pool, log.origin))
    await pool.close()
    await log.close()
    drop_database(database)


def cosigned(note: bytes, witness: str) -> bytes:
    line = cosign(parse_note(note).text, witness, signer_of(witness), NOW).line
    return add_signatures(note, [line])


async def test_a_new_log_has_no_checkpoint(world: World) -> None:
    assert await world.store.latest() is None
    assert await world.store.at(0) is None
    assert await world.store.published() == []


async def test_the_latest_checkpoint_is_the_one_published_last(world: World) -> None:
    notes = [world.note(size) for size in (1, 2, 5)]
    for note in notes:
        await world.store.publish(note)
        assert await world.store.latest() == note
    assert await world.store.at(2) == notes[1]
    assert await world.store.at(3) is None


async def test_published_checkpoints_are_paged_in_ascending_order(world: World) -> None:
    notes = {size: world.note(size) for size in (1, 2, 5, 9)}
    for note in notes.values():
        await world.store.publish(note)
    assert await world.store.published(limit=3) == list(notes.items())[:3]
    assert await world.store.published(after=2, limit=3) == list(notes.items())[2:]
    assert await world.store.published(after=9) == []


@pytest.mark.parametrize("limit", [pytest.param(0, id="none"), pytest.param(10_001, id="over ten thousand")])
async def test_a_page_has_its_limits(world: World, limit: int) -> None:
    with pytest.raises(InvalidInput, match="page with `after`"):
        await world.store.published(limit=limit)


async def test_signatures_are_added_and_none_is_lost(world: World) -> None:
    plain = world.note(3)
    one, two, *_ = (cosigned(plain, witness) for witness in WITNESSES)
    for note in (plain, one, two, plain):
        await world.store.publish(note)
    held = await world.store.latest()
    assert held is not None
    lines = {item.line for note in (plain, one, two) for item in parse_note(note).signatures}
    assert {item.line for item in parse_note(held).signatures} == lines
    assert held.startswith(plain)


async def test_signatures_that_come_at_once_are_all_kept(world: World) -> None:
    plain = world.note(3)
    await world.store.publish(plain)
    await asyncio.gather(*(world.store.publish(cosigned(plain, witness)) for witness in WITNESSES))
    held = await world.store.latest()
    assert held is not None
    assert {item.name for item in parse_note(held).signatures} == {world.log.origin, *WITNESSES}


@pytest.mark.parametrize(
    ("size", "root"),
    [
        pytest.param(4, bytes(32), id="a smaller one"),
        pytest.param(5, b"\1" * 32, id="another root"),
        pytest.param(3, bytes(32), id="one that was published before the latest"),
    ],
)
async def test_what_contradicts_the_latest_is_refused(world: World, size: int, root: bytes) -> None:
    for known in (3, 5):
        await world.store.publish(world.note(known))
    before = await world.store.published()
    with pytest.raises(Conflict, match=rf"5 entries.*of {size} with root {root.hex()}.*does not follow"):
        await world.store.publish(world.note(size, root))
    assert await world.store.published() == before


async def test_only_checkpoints_of_this_log_are_published(world: World) -> None:
    other = sign_checkpoint(Checkpoint("log.example/other", 3, bytes(32)), "log.example/other", [KEY])
    with pytest.raises(InvalidNote, match="not of " + world.log.origin) as refused:
        await world.store.publish(other)
    assert refused.value.reason == "OtherOrigin"
    with pytest.raises(InvalidNote):
        await world.store.publish(b"no note")
    assert await world.store.latest() is None


async def test_hashes_make_the_root_and_every_proof(world: World) -> None:
    leaves = await world.grow(700)
    for size in (1, 2, 255, 256, 257, 511, 512, 699, 700):
        root = subtree_root(leaves[:size])
        plan = root_plan(size)
        assert plan.fold(await world.store.hashes(plan.nodes)) == (root,)
        for index in {0, size // 2, size - 1}:
            inclusion = inclusion_plan(index, size)
            proof = inclusion.fold(await world.store.hashes(inclusion.nodes))
            verify_inclusion(index, size, leaves[index], proof, root)
        for old in {1, (size + 1) // 2, size}:
            consistency = consistency_plan(old, size)
            proof = consistency.fold(await world.store.hashes(consistency.nodes))
            verify_consistency(old, size, proof, subtree_root(leaves[:old]), root)


async def test_hashes_come_in_the_order_they_were_asked_for_and_as_often(world: World) -> None:
    leaves = await world.grow(300)
    nodes = [Node(8, 0), Node(0, 7), Node(3, 2), Node(0, 7)]
    wanted = [subtree_root(leaves[:256]), leaves[7], subtree_root(leaves[16:24]), leaves[7]]
    assert list(await world.store.hashes(nodes)) == wanted
    assert list(await world.store.hashes([])) == []


@pytest.mark.parametrize("node", [Node(0, 10), Node(1, 5), Node(4, 0), Node(63, 0), Node(0, -1)], ids=str)
async def test_what_goes_beyond_the_committed_entries_has_no_hash(world: World, node: Node) -> None:
    await world.grow(10)
    with pytest.raises(InvalidProof, match="the log has 10 entries"):
        await world.store.hashes([Node(0, 0), node])


async def test_hashes_are_kept_once_and_never_contradicted(world: World) -> None:
    leaves = await world.grow(256)
    truth = [(Node(8, 0), subtree_root(leaves[:256]))]
    await world.store.keep(truth)
    with pytest.raises(Conflict, match=r"subtree 0 of level 8.*verify the log"):
        await world.store.keep([(Node(8, 0), bytes(32))])
    assert list(await world.store.hashes([Node(8, 0)])) == [truth[0][1]]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param((Node(0, 0), bytes(32)), id="a leaf"),
        pytest.param((Node(9, 0), bytes(32)), id="a level between"),
        pytest.param((Node(8, 0), bytes(31)), id="a hash that is too short"),
    ],
)
async def test_only_hashes_of_kept_levels_are_kept(world: World, wrong: tuple[Node, bytes]) -> None:
    with pytest.raises(InvalidProof, match="is not kept"):
        await world.store.keep([wrong])


async def test_a_checkpoint_is_stored_as_it_was_signed(world: World) -> None:
    note = sign_checkpoint(Checkpoint(world.log.origin, 4, bytes(32), ("an extension",)), "log.example", [KEY])
    await world.store.publish(note)
    assert await world.store.at(4) == note
    with pytest.raises(Conflict):
        await world.store.publish(world.note(4))  # same size and root, other text
    assert parse_checkpoint(await world.store.latest() or b"")[0].extensions == ("an extension",)
