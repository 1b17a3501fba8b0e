"""Attacks on the whole log that leave every hash in place: only a checkpoint kept elsewhere finds them.

Numbers are the rows of the attack table of the audit plane. Each attack is first shown to pass without the protection.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.attacks.test_log_tampering import as_superuser, replace_entry
from tests.conftest import Database
from tests.contract.test_event_log import body

from triplane.adapters.filesystem.exportfolder import ExportFolder
from triplane.adapters.filesystem.verifystate import VerifyState
from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.adapters.postgres.archivist import PostgresArchivist
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.entry import first_entries, prepare, seal_all
from triplane.audit.merkle import Node
from triplane.audit.model import Break
from triplane.audit.notekey import KeyRing, KeyType, key_of
from triplane.audit.verifying import TreeState, tile_roots
from triplane.controllers.archiving import archive_log
from triplane.controllers.exporting import StoredLog
from triplane.controllers.verify import Wanted, verify
from triplane.errors import InvalidInput, InvalidNote

pytestmark = pytest.mark.attacks

KEY, THIEF = MemorySigner(b"the log"), MemorySigner(b"another key")
SIZE = 602


@dataclass(frozen=True)
class World:
    """A log of ``SIZE`` entries, and what an outsider holds of it."""

    log: PostgresEventLog
    store: PostgresCheckpointStore
    database: Database

    @property
    def trust(self) -> CheckpointTrust:
        return CheckpointTrust(self.log.origin, KeyRing([key_of(self.log.origin, KeyType.ED25519, KEY)]))

    async def checkpoint(self, size: int, signer: MemorySigner = KEY) -> bytes:
        """A signed checkpoint of the first ``size`` entries, as they are now."""
        found = await self.log.verify_chain(last=size - 1)
        assert found.ok
        return self.sign(size, bytes.fromhex(found.root), signer)

    def sign(self, size: int, root: bytes, signer: MemorySigner = KEY) -> bytes:
        return sign_checkpoint(Checkpoint(self.log.origin, size, root), self.log.origin, [signer])

    async def first_break(self, wanted: Wanted) -> Break:
        found = await verify(self.log, self.store, replace(wanted, trust=wanted.trust or self.trust))
        assert not found.ok
        assert found.root == ""
        assert found.broken is not None
        assert found.broken.remedy
        return found.broken


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[World]:
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="test")
    await open_pool(pool)
    try:
        yield World(log, PostgresCheckpointStore(pool, log.origin), database)
    finally:
        await pool.close()
        await log.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with opened(database) as made:
        await made.log.append([body(n) for n in range(SIZE - 2)])
        yield made


async def rewrite(world: World, first: int, number: int = 9000) -> None:
    """Replace entry ``first`` and chain everything behind it anew: every hash, column and index fits."""
    entries = await world.log.query(limit=10_000)
    prev = entries[first - 1].leaf_hash
    as_superuser(world.database)
    with world.database.superuser() as admin, admin.transaction():
        for recorded in entries[first:]:
            changed = number if recorded.seq == first else recorded.seq - 2
            made = prepare(world.log.origin, body(changed))
            sealed = seal_all([made], recorded.seq, prev, recorded.entry["time"])[0]
            prev = sealed.leaf.hex()
            replace_entry(admin, recorded.seq, sealed.octets)
        admin.execute("UPDATE log.heads SET leaf = %s", (bytes.fromhex(prev),))


async def test_4_a_suffix_rewritten_with_all_its_hashes_is_found_by_a_checkpoint(world: World) -> None:
    kept = [await world.checkpoint(size) for size in (100, 256, SIZE)]
    await rewrite(world, 580)
    assert (await world.log.verify_chain()).ok, "without a checkpoint nothing shows"
    found = await world.first_break(Wanted(earlier=kept))
    assert (found.seq, found.reason) == (256, "CheckpointMismatch")
    assert f"entries 256 to {SIZE - 1}" in found.message
    assert "keep this database as evidence" in found.remedy


async def test_4_the_published_checkpoint_is_held_against_the_log_without_being_asked(world: World) -> None:
    note = await world.checkpoint(SIZE)
    leaves = await world.store.hashes([Node(0, index) for index in range(512)])
    await world.store.keep([(Node(8, tile), root) for tile, root in enumerate(tile_roots(leaves))])
    await world.store.publish(note)
    await rewrite(world, 580)
    assert (await verify(world.log, world.store, Wanted())).ok, "without a key nothing is believed, and nothing shows"
    assert (await world.first_break(Wanted())).reason == "CheckpointMismatch"


async def test_4_a_checkpoint_behind_which_is_verified_must_fit_what_is_before_it(world: World) -> None:
    note = await world.checkpoint(600)
    await rewrite(world, 300)
    assert (await world.log.verify_chain(first=512)).ok
    found = await world.first_break(Wanted(behind=note))
    assert found.reason == "CheckpointMismatch"


async def test_4_a_fork_of_what_is_archived_that_was_signed_anew_is_found_by_a_checkpoint_of_before(
    world: World, tmp_path: Path
) -> None:
    """Whoever has the log's key, too, forks the log, signs it, and archives beyond what the outsider has kept."""
    kept = [await world.checkpoint(size) for size in (50, 100, 200)]
    await rewrite(world, 120)
    forked = await world.checkpoint(SIZE)
    leaves = await world.store.hashes([Node(0, index) for index in range(512)])
    await world.store.keep([(Node(8, tile), root) for tile, root in enumerate(tile_roots(leaves))])
    await world.store.publish(forked)
    with ExportFolder(tmp_path / "archive") as target:
        async with PostgresArchivist(world.database.dsn("migrator"), world.log.origin) as archivist:
            source, now = StoredLog(world.log, world.store), datetime.now(UTC)
            done = await archive_log(source, target, archivist, world.trust, before=300, place="archive", now=now)
    assert done.upto == 256
    found = await verify(world.log, world.store, Wanted(trust=world.trust, earlier=kept[:2]))
    assert (found.ok, found.compared) == (True, (50, 100, SIZE)), "nothing shows but by what was signed behind the fork"
    for wanted, known in ((Wanted(earlier=kept), 100), (Wanted(earlier=kept[2:]), 0), (Wanted(behind=kept[2]), 0)):
        broken = await world.first_break(wanted)
        assert (broken.seq, broken.reason) == (known, "CheckpointMismatch")
        assert "the checkpoint of 200 entries" in broken.message


async def test_5_a_log_begun_anew_is_found_by_any_checkpoint_of_the_old(world: World) -> None:
    note = await world.checkpoint(2)
    host, _, install = world.log.origin.partition("/")
    begun = first_entries(host, install, datetime(2020, 1, 1, tzinfo=UTC))
    rest = [prepare(world.log.origin, body(n)) for n in range(5000, 5000 + SIZE - 2)]
    forged = [*begun, *seal_all(rest, 2, begun[-1].leaf.hex(), "2020-01-02T00:00:00.000000Z")]
    as_superuser(world.database)
    with world.database.superuser() as admin, admin.transaction():
        admin.execute("DELETE FROM log.entry_ids")
        for seq, sealed in enumerate(forged):
            replace_entry(admin, seq, sealed.octets)
        admin.execute("UPDATE log.heads SET leaf = %s, time = '2020-01-02T00:00:00.000000Z'", (forged[-1].leaf,))
    assert (await world.log.verify_chain()).ok, "without a checkpoint nothing shows"
    found = await world.first_break(Wanted(earlier=[note]))
    assert (found.seq, found.reason) == (0, "CheckpointMismatch")


async def test_2_a_log_cut_off_with_its_head_is_found_by_a_checkpoint(world: World) -> None:
    note = await world.checkpoint(SIZE)
    as_superuser(
        world.database,
        "DELETE FROM log.entries WHERE seq > 590",
        "DELETE FROM log.entry_ids WHERE seq > 590",
        "UPDATE log.heads SET (size, leaf, time) = (SELECT 591, leaf, time FROM log.entries WHERE seq = 590)",
    )
    assert (await world.log.verify_chain()).ok, "without a checkpoint nothing shows"
    for wanted in (Wanted(earlier=[note]), Wanted(behind=note)):
        found = await world.first_break(wanted)
        assert (found.seq, found.reason) == (591, "EntryMissing")
        assert f"checkpoint of {SIZE} entries" in found.message


async def test_11_a_range_says_that_nothing_vouches_for_its_left_edge(world: World) -> None:
    await rewrite(world, 300)
    ranged = await verify(world.log, world.store, Wanted(first=512))
    assert (ranged.ok, ranged.unanchored, ranged.root) == (True, True, "")
    whole = await world.log.verify_chain()
    assert (whole.ok, whole.unanchored) == (True, False)


async def test_11_behind_a_checkpoint_the_left_edge_is_checked(world: World) -> None:
    note = await world.checkpoint(512)
    leaves = await world.store.hashes([Node(0, index) for index in range(512)])
    await world.store.keep([(Node(8, tile), root) for tile, root in enumerate(tile_roots(leaves))])
    found = await verify(world.log, world.store, Wanted(behind=note, trust=world.trust))
    assert (found.ok, found.first, found.unanchored, found.compared) == (True, 256, False, (512,))
    assert found.root == (await world.log.verify_chain()).root
    disabled = "ALTER TABLE log.subtrees DISABLE TRIGGER ALL"
    as_superuser(world.database, disabled, "UPDATE log.subtrees SET hash = decode(repeat('ab', 32), 'hex')")
    assert (await world.first_break(Wanted(behind=note))).reason == "CheckpointMismatch"
    forged = world.sign(512, b"\x01" * 32)
    assert (await world.first_break(Wanted(behind=forged))).reason == "CheckpointMismatch"


async def test_11_a_checkpoint_signed_by_another_key_is_no_anchor(world: World) -> None:
    stolen = await world.checkpoint(512, THIEF)
    with pytest.raises(InvalidNote, match="no key pinned"):
        await verify(world.log, world.store, Wanted(behind=stolen, trust=world.trust))
    with pytest.raises(InvalidInput, match="give the log's key"):
        await verify(world.log, world.store, Wanted(behind=stolen))


async def _state(world: World) -> TreeState:
    """Where a verification of the whole log says that another may go on, at a tile's edge."""
    states: list[TreeState] = []
    given = (await world.log.verify_chain(last=511)).root
    await verify(
        world.log,
        world.store,
        Wanted(last=511),
        lambda progress: states.append(progress.state) if progress.state else None,
    )
    assert states[-1].root().hex() == given
    return states[-1]


async def test_11_what_a_state_says_is_held_against_a_signed_checkpoint(world: World) -> None:
    note = await world.checkpoint(SIZE)
    state = await _state(world)
    with pytest.raises(InvalidInput, match="no signed checkpoint"):
        await verify(world.log, world.store, Wanted(state=state))
    await world.store.publish(note)
    found = await verify(world.log, world.store, Wanted(state=state, trust=world.trust))
    assert (found.ok, found.first, found.count, found.compared) == (True, 512, SIZE - 512, (SIZE,))
    await rewrite(world, 520)
    assert (await world.first_break(Wanted(state=state))).reason == "CheckpointMismatch"
    altered = replace(state, peaks=(b"\x02" * 32,))
    assert (await world.first_break(Wanted(state=altered))).reason == "CheckpointMismatch"
    assert (await world.first_break(Wanted(state=replace(state, leaf="ab" * 32)))).reason == "PrevMismatch"


async def test_11_an_altered_state_file_is_refused(world: World, tmp_path: Path) -> None:
    kept = VerifyState(tmp_path / "state", tmp_path / "secrets", world.log.origin)
    assert kept.read() is None
    state = await _state(world)
    kept.write(state)
    assert kept.read() == state
    octets = (tmp_path / "state").read_bytes()
    for changed in (octets.replace(b'"size":512', b'"size":256'), octets[:-20], b"[]", b""):
        (tmp_path / "state").write_bytes(changed)
        with pytest.raises(InvalidInput, match="verify from the beginning"):
            kept.read()
    (tmp_path / "state").write_bytes(octets)
    with pytest.raises(InvalidInput, match="is of the log"):
        VerifyState(tmp_path / "state", tmp_path / "secrets", "localhost/other").read()
    with pytest.raises(InvalidInput, match="seal"):
        VerifyState(tmp_path / "state", tmp_path / "other secrets", world.log.origin).read()


async def test_12_an_emptied_log_is_a_break_where_a_checkpoint_counts_entries(world: World) -> None:
    note = await world.checkpoint(SIZE)
    as_superuser(
        world.database,
        "DELETE FROM log.entries",
        "DELETE FROM log.entry_ids",
        "UPDATE log.heads SET size = 0, leaf = decode(repeat('00', 32), 'hex'), time = ''",
    )
    empty = await world.log.verify_chain()
    assert (empty.ok, empty.count, empty.broken) == (False, 0, None), "nothing checked is no success"
    found = await world.first_break(Wanted(earlier=[note]))
    assert (found.seq, found.reason) == (0, "EntryMissing")


async def test_21_what_is_appended_during_a_verification_is_verified_too(world: World) -> None:
    """The verification is held after its first part until there is more; the head it ends at is the new one."""
    loop = asyncio.get_running_loop()
    appended: list[asyncio.Task[Sequence[object]]] = []

    def tell(_: object) -> None:
        if not appended:
            appended.append(loop.create_task(world.log.append([body(n) for n in range(SIZE, SIZE + 40)])))

    before = (await world.log.head())[0]
    found = await verify(world.log, world.store, Wanted(), tell)
    await appended[0]
    assert found.ok
    assert found.count >= before
    again = await world.log.verify_chain()
    assert (again.ok, again.count) == (True, before + 40)


async def test_21_an_alteration_of_what_was_appended_during_a_verification_is_found(world: World) -> None:
    await world.log.append([body(n) for n in range(SIZE, SIZE + 40)])
    as_superuser(world.database, "UPDATE log.entries SET kind = 'Graph' WHERE seq = 630")
    found = await world.log.verify_chain(first=600)
    assert found.broken is not None
    assert (found.broken.seq, found.broken.reason) == (630, "ProjectionMismatch")


async def test_the_same_is_found_by_worker_processes(world: World) -> None:
    assert (await verify(world.log, world.store, Wanted(processes=2))).ok
    as_superuser(world.database, "UPDATE log.entries SET kind = 'Graph' WHERE seq = 430")
    found = await world.first_break(Wanted(processes=2))
    assert (found.seq, found.reason) == (430, "ProjectionMismatch")
    assert "Graph" in found.message
