"""Rows 8, 13 and 14 of the attack table, against a real Postgres whose owner is the attacker, and the real notary.

Each attack first succeeds with the protection removed: without the notary's own record and the anchors, the database's
word is all there is, however well it chains.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.attacks.test_log_tampering import as_superuser, replace_entry
from tests.conftest import Database, drop_database
from tests.contract.test_event_log import body
from tests.unit.controllers.notary_world import NotaryWorld, size_of

from triplane.adapters.anchors.file import FileAnchor
from triplane.adapters.filesystem.ledger import FolderLedger
from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder
from triplane.adapters.memory.notary import MemoryLedger
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import parse_checkpoint
from triplane.audit.entry import parse, prepare, seal_all
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV
from triplane.controllers.continuity import examine, gather_places
from triplane.domain.continuity import Finding, Standing
from triplane.errors import Contradicted, Unavailable

pytestmark = pytest.mark.attacks

SIZE = 20
Open = Callable[..., Awaitable[NotaryWorld]]


class Installation:
    """A log in Postgres, and what its notary keeps outside."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self._opened = AsyncExitStack()

    @property
    def anchor(self) -> Path:
        return self.folder / "elsewhere" / "checkpoint"

    async def open(self, *, ledger: bool = True, anchors: bool = True) -> NotaryWorld:
        """As the operator finds it; without ``ledger`` and ``anchors`` the protection is removed."""
        dsn = self.database.dsn("operator")
        log = await PostgresEventLog(dsn, writer="operator").open()
        self._opened.push_async_callback(log.close)
        pool = make_pool(dsn, name="notary", largest=2)
        self._opened.push_async_callback(pool.close)
        await open_pool(pool)
        return NotaryWorld(
            log,
            PostgresCheckpointStore(pool, log.origin),
            FolderLedger(self.folder / "notary") if ledger else MemoryLedger(),
            NotaryKeyFolder(self.folder / "secrets"),
            [FileAnchor(self.anchor)] if anchors else [],
        )

    async def close(self) -> None:
        """Disconnect everything."""
        await self._opened.aclose()

    async def backup(self) -> Database:
        """A copy of the database as it is now."""
        await self.close()
        copy = replace(self.database, name=f"{self.database.name}_b")
        with psycopg.connect(self.database.server.embedded.dsn, autocommit=True) as admin:
            names = sql.Identifier(copy.name), sql.Identifier(self.database.name)
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return copy

    def forget_checkpoints(self) -> None:
        """What the owner of the database does so that nothing in it speaks against them."""
        with self.database.superuser() as admin:
            for table in ("checkpoints", "subtrees"):
                admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL")
                admin.execute(f"DELETE FROM log.{table}")

    def rewrite(self, first: int) -> None:
        """Row 4: other entries from ``first`` to the end, in one chain with the rest, indexes and head included."""
        as_superuser(self.database)
        with self.database.superuser() as admin:
            kept = [
                row[0] for row in admin.execute("SELECT octets FROM log.entries WHERE seq < %s ORDER BY seq", (first,))
            ]
            prev = leaf_hash(kept[-1]).hex() if kept else GENESIS_PREV
            time = str(parse(kept[-1])["time"])
            sealed = seal_all(
                [prepare(self.database.origin, body(900 + n)) for n in range(first, SIZE)], first, prev, time
            )
            for seq, entry in enumerate(sealed, first):
                replace_entry(admin, seq, entry.octets)
            admin.execute("UPDATE log.heads SET leaf = %s", (sealed[-1].leaf,))


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    """A log of ``SIZE`` entries, signed and anchored."""
    made = Installation(database, tmp_path)
    world = await made.open()
    await world.grow(SIZE)
    assert (await world.signed()).size == SIZE
    assert size_of(made.anchor.read_bytes()) == SIZE
    yield made
    await made.close()


async def standing(world: NotaryWorld, place: str = "file:") -> Finding:
    """How the log stands to one place."""
    places = await gather_places(world.store, world.ledger, world.anchors)
    findings = await examine(world.log, world.store, places, world.record.known(world.log.origin))
    return next(finding for finding in findings if place in finding.place)


# Row 8: two checkpoints of one size with different roots; a smaller one after a larger.


@pytest.mark.parametrize(
    ("ledger", "anchors", "place"),
    [
        pytest.param(True, False, "the notary's own record", id="the notary remembers"),
        pytest.param(False, True, "file:", id="an anchor remembers"),
    ],
)
async def test_8_a_second_root_of_a_signed_size_is_not_signed(
    installation: Installation, ledger: bool, anchors: bool, place: str
) -> None:
    seen, _ = parse_checkpoint(installation.anchor.read_bytes())
    installation.rewrite(10)
    installation.forget_checkpoints()
    world = await installation.open(ledger=ledger, anchors=anchors)
    assert (await world.log.verify_chain()).ok, "the chain alone does not tell"
    with pytest.raises(Contradicted) as refused:
        await world.begun()
    for said in (place, f"{SIZE} entries", seen.root.hex(), "not the ones that were signed", "restore", "new log"):
        assert said in str(refused.value)

    forgetful = await installation.open(ledger=False, anchors=False)
    second = await forgetful.signed()
    assert (second.size, second.root != seen.root) == (SIZE, True), "one that remembers nothing signs the fork"


async def test_8_beside_what_is_published_the_database_takes_no_fork_and_nothing_smaller(
    installation: Installation,
) -> None:
    installation.rewrite(10)
    forgetful = await installation.open(ledger=False, anchors=False)
    with pytest.raises(Contradicted, match=rf"published checkpoints.*{SIZE} entries.*not the ones"):
        await forgetful.begun()
    installation.forget_checkpoints()
    assert await forgetful.signed(), "its owner removes what is published, and the database says nothing"


# Row 13: a backup is restored.


async def test_13_a_restored_backup_is_not_gone_on_from(installation: Installation) -> None:
    copy = await installation.backup()
    world = await installation.open()
    await world.grow(SIZE + 5)
    await world.signed()
    await installation.close()
    restored = Installation(copy, installation.folder)
    try:
        for ledger, anchors, place in ((True, False, "own record"), (False, True, str(installation.anchor))):
            world = await restored.open(ledger=ledger, anchors=anchors)
            assert (await world.log.verify_chain()).ok, "all that is there is as it was signed"
            with pytest.raises(Contradicted) as refused:
                await world.begun()
            for said in (place, f"{SIZE + 5} entries", f"only {SIZE}", f"entries {SIZE} to {SIZE + 4} were cut off"):
                assert said in str(refused.value)
            assert f"TRIPLANE_ACCEPT_ROLLBACK={world.log.origin}+{SIZE + 5}+" in str(refused.value)
        forgetful = await restored.open(ledger=False, anchors=False)
        await forgetful.log.append([body(n) for n in range(500, 500 + 5)])
        assert (await forgetful.signed()).size == SIZE + 5, "one that remembers nothing signs another past"
    finally:
        await restored.close()
        drop_database(copy)


async def test_13_what_was_cut_off_under_the_running_operator_is_noticed(installation: Installation) -> None:
    world = await installation.open()
    notary = await world.begun()
    as_superuser(
        installation.database,
        f"DELETE FROM log.entries WHERE seq >= {SIZE - 3}",
        f"DELETE FROM log.entry_ids WHERE seq >= {SIZE - 3}",
        "UPDATE log.heads SET (size, leaf, time) ="
        f" (SELECT seq + 1, leaf, time FROM log.entries WHERE seq = {SIZE - 4})",
    )
    assert (await world.log.verify_chain()).ok, "the chain alone does not tell"
    with pytest.raises(Contradicted, match=rf"had {SIZE} entries .*has {SIZE - 3} .*restore what is missing"):
        await notary.sign()


async def test_13_a_log_begun_anew_in_the_place_of_the_old_one_is_not_signed(
    installation: Installation, tmp_path: Path
) -> None:
    with installation.database.superuser() as admin:
        for table in ("heads", "entries", "entry_ids", "checkpoints"):
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL")
            admin.execute(f"DELETE FROM log.{table}")
        admin.execute("INSERT INTO log.heads (origin) VALUES ('localhost/new')")
    with pytest.raises(Contradicted, match=r"the log is localhost/new.*begun anew, or exchanged"):
        await (await installation.open()).begun()
    assert await (await installation.open(ledger=False, anchors=False)).begun(), "one that remembers nothing goes on"


# Row 14: an anchor is missing, stale, unreachable, or was first written after the tampering. None is the other.


async def test_14_an_anchor_that_was_never_written_is_absent_and_nothing_is_wrong(installation: Installation) -> None:
    world = await installation.open()
    world.anchors = [FileAnchor(installation.folder / "new" / "checkpoint")]
    assert (await standing(world)).standing is Standing.ABSENT
    assert (await world.signed()).size == SIZE
    assert (await standing(world)).standing is Standing.CONTINUES


async def test_14_an_anchor_that_was_removed_is_not_one_that_never_was(installation: Installation) -> None:
    installation.anchor.unlink()
    forgetful = await installation.open(ledger=False)
    assert (await standing(forgetful)).standing is Standing.ABSENT, "without a record nobody misses it"
    world = await installation.open()
    found = await standing(world)
    assert found.standing is Standing.VANISHED
    assert f"was given one of {SIZE} entries: somebody removed it" in found.message
    await world.signed()
    assert size_of(installation.anchor.read_bytes()) == SIZE, "the log is not in doubt: it is written again"


async def test_14_an_old_checkpoint_put_back_is_stale_and_not_a_mismatch(installation: Installation) -> None:
    old = installation.anchor.read_bytes()
    world = await installation.open()
    await world.grow(SIZE + 5)
    await world.signed()
    installation.anchor.write_bytes(old)
    forgetful = await installation.open(ledger=False)
    assert (await standing(forgetful)).standing is Standing.CONTINUES, (
        "without a record an old one passes for the latest"
    )
    found = await standing(await installation.open())
    assert (found.standing, found.contradicts) == (Standing.STALE, False)
    assert f"{SIZE} entries, though it was given one of {SIZE + 5}" in found.message


async def test_14_an_anchor_out_of_reach_neither_halts_nor_is_overwritten_unread(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = installation.anchor.read_bytes()
    installation.rewrite(10)
    installation.forget_checkpoints()
    world = await installation.open(ledger=False)
    read = FileAnchor.read

    async def away(self: FileAnchor) -> bytes | None:
        raise Unavailable("the file server does not answer")

    monkeypatch.setattr(FileAnchor, "read", away)
    found = await standing(world)
    assert (found.standing, found.contradicts) == (Standing.UNREACHABLE, False)
    await world.signed()
    assert installation.anchor.read_bytes() == evidence, "what could not be read is not replaced"
    assert world.distribution is not None
    assert "the file server does not answer" in world.distribution.anchored[0].problem
    monkeypatch.setattr(FileAnchor, "read", read)
    world.clock.seconds += 3600
    with pytest.raises(Contradicted, match="not the ones that were signed"):
        await world.distribution.deliver()
    assert installation.anchor.read_bytes() == evidence

    signed = await world.store.latest()
    await FileAnchor(installation.anchor).write(signed or b"")
    assert (await standing(world)).standing is Standing.CONTINUES, "an anchor written unread would have agreed"


async def test_14_an_anchor_first_written_after_the_tampering_does_not_vouch_for_what_was_before(
    installation: Installation,
) -> None:
    installation.rewrite(10)
    installation.forget_checkpoints()
    fresh = FileAnchor(installation.folder / "fresh" / "checkpoint")
    world = await installation.open(anchors=False)
    world.anchors = [fresh]
    assert (await standing(world)).standing is Standing.ABSENT
    with pytest.raises(Contradicted, match="the notary's own record"):
        await world.signed()
    assert await fresh.read() is None, "it holds nothing that the rewritten log could be held against"

    forgetful = await installation.open(ledger=False, anchors=False)
    forgetful.anchors = [fresh]
    await forgetful.signed()
    assert (await standing(forgetful)).standing is Standing.CONTINUES, (
        "on its own word it agrees with the rewritten log"
    )


async def test_14_what_somebody_else_signed_is_no_mismatch_and_is_kept(installation: Installation) -> None:
    stranger = await installation.open(ledger=False, anchors=False)
    stranger.keys = NotaryKeyFolder(installation.folder / "stranger")
    stranger.anchors = [FileAnchor(installation.folder / "strange" / "checkpoint")]
    installation.forget_checkpoints()
    await stranger.signed()
    note = (installation.folder / "strange" / "checkpoint").read_bytes()
    installation.anchor.write_bytes(note)
    world = await installation.open()
    found = await standing(world)
    assert (found.standing, found.contradicts) == (Standing.UNVERIFIED, False)
    await world.grow(SIZE + 1)
    await world.signed()
    assert installation.anchor.read_bytes() == note, "evidence is left where it is"
