"""``triplane log archive`` on a real Postgres: entries leave, nothing that rests on them does."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.contract.session_world import ManualClock
from tests.contract.test_event_log import body
from tests.integration.archiveworld import World, archiving
from tests.unit.audit.notary import log_key
from typer.testing import CliRunner

from triplane.adapters.filesystem.exportfolder import ExportFolder
from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.postgres import archivist as archivist_module
from triplane.adapters.postgres import sweep as sweep_module
from triplane.adapters.postgres.checkers import Checkers
from triplane.adapters.postgres.chunks import Chunk
from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.entry import event_id
from triplane.audit.exported import verify_export
from triplane.audit.merkle import inclusion_plan, verify_inclusion
from triplane.audit.model import EventBody, EventFilter, EventSubject, Recorded
from triplane.audit.verifying import Segment, segment_of
from triplane.cli.main import app
from triplane.controllers.archiving import first_since
from triplane.controllers.blobcheck import check_blobs
from triplane.controllers.collect import LogReferences
from triplane.controllers.exporting import StoredLog, export_log
from triplane.controllers.verify import Wanted, verify
from triplane.controllers.wholelog import open_archive, whole_log
from triplane.domain.absence import Absence, Absent
from triplane.domain.collection import SPEAKS_OF_BLOBS, references_of
from triplane.domain.events import blob_erased, log_archived
from triplane.errors import Archived as ArchivedError
from triplane.errors import Conflict, Corrupt, IdReused, InvalidInput, Unavailable


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with archiving(database, tmp_path / "archive") as made:
        yield made


async def test_partitions_are_made_ahead_of_need_and_guarded_like_the_first(world: World) -> None:
    assert world.partitions() == ["log.entries_0"]
    await world.log.append([body(n) for n in range(450)])  # within an eighth of the end
    assert world.partitions() == ["log.entries_0", "log.entries_512"]
    await world.log.append([body(n) for n in range(450, 1500)])
    assert world.partitions() == ["log.entries_0", "log.entries_512", "log.entries_1024", "log.entries_1536"]
    assert (await world.log.verify_chain()).count == 1502
    with world.database.superuser() as admin:
        for statement in (
            "UPDATE log.entries SET octets = octets WHERE seq = 600",
            "DELETE FROM log.entries_512 WHERE seq = 600",
            "TRUNCATE log.entries_512",
        ):
            for replica in ("origin", "replica"):
                admin.execute(f"SET session_replication_role = {replica}")  # type: ignore[arg-type]
                with pytest.raises(psycopg.Error, match="append-only"):
                    admin.execute(statement)  # type: ignore[arg-type]
    with (
        psycopg.connect(world.database.dsn("operator")) as operator,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        operator.execute("SELECT * FROM log.entries_512")


async def test_one_call_may_span_several_partitions(world: World) -> None:
    receipts = await world.log.append([body(n) for n in range(1400)])
    assert [receipt.seq for receipt in receipts] == list(range(2, 1402))
    assert [item.seq for item in await world.log.query(after=500, limit=30)] == list(range(501, 531))
    assert [item.seq for item in await world.log.query(EventFilter(uid="uid-1300"))] == [1302]


async def test_what_is_archived_leaves_and_all_that_rests_on_it_stays(world: World) -> None:
    receipts = await world.log.append([body(n) for n in range(1400)])
    await world.sign()
    whole = await world.log.verify_chain()
    done = await world.archive(before=700)
    assert (done.first, done.upto, done.size, done.removed) == (0, 512, 1402, 510)
    assert world.rows() == (512, 1402 - 512)
    with world.database.superuser() as admin:
        assert admin.execute("SELECT seq FROM log.entries_0 ORDER BY seq").fetchall() == [(0,), (1,)]

    # The archive is whole, and checked by the same verifier as every export.
    found = verify_export(lambda path: (world.folder / path).read_bytes(), world.trust)
    assert (found.ok, found.count) == (True, 1402)
    # Ids stay taken, and the first receipts are given again.
    assert await world.log.append([body(0), body(510)]) == [receipts[0], receipts[510]]
    with pytest.raises(IdReused):
        await world.log.append([body(0, data={"count": 77})])
    # The chain verifies from the boundary on, with the root over everything.
    again = await world.log.verify_chain()
    assert again.ok, again.broken
    assert again.last == whole.last + 1
    # Proofs of what is archived and of what is not.
    for receipt in (receipts[1], receipts[898]):
        plan = inclusion_plan(receipt.seq, 1402)
        proof = plan.fold(await world.checkpoints.hashes(plan.nodes))
        verify_inclusion(receipt.seq, 1402, bytes.fromhex(receipt.leaf_hash), proof, bytes.fromhex(whole.root))
    # And it is said in the log.
    (told,) = await world.log.query(EventFilter(types=frozenset({"log.archived"})), after=1401)
    assert told.entry["data"]["upto"] == 512
    assert told.entry["data"]["checkpointSize"] == 1402


async def test_whoever_asks_for_what_is_archived_is_told_where_it_is(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    where = f"entries 0 to 255 .* are archived at {world.folder}"
    with pytest.raises(ArchivedError, match=f"resource.observed/uid-7/1 is entry 9, and {where}"):
        await world.log.get(body(7).id)
    with pytest.raises(ArchivedError, match=where) as refused:
        await world.log.query()
    assert refused.value.upto == 256
    with pytest.raises(ArchivedError, match=where):
        await anext(world.log.stream())
    assert (await anext(world.log.stream(after=255))).seq == 256
    assert (await world.log.query(after=255, limit=1))[0].seq == 256
    assert await world.log.query(EventFilter(uid="uid-7")) == []
    assert (await world.log.query(newest_first=True, limit=1))[0].entry["type"] == "log.archived"


async def test_archiving_goes_on_where_it_ended_and_never_beyond_the_checkpoint(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    assert (await world.archive(before=300)).upto == 256
    assert (await world.archive(before=300)).removed == 0
    await world.log.append([body(n) for n in range(600, 900)])
    done = await world.archive(before=10_000)  # the checkpoint is of 602 entries still
    assert (done.first, done.upto) == (256, 512)
    await world.sign()
    done = await world.archive(before=10_000)
    assert (done.first, done.upto) == (512, 768)
    assert (await world.log.verify_chain()).ok
    assert verify_export(lambda path: (world.folder / path).read_bytes(), world.trust).ok


async def test_a_crash_after_the_boundary_was_recorded_leaves_rows_that_the_next_run_removes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()

    def crash(name: str) -> None:
        raise RuntimeError(name)

    monkeypatch.setattr(archivist_module, "failpoint", crash)
    with pytest.raises(RuntimeError, match="before_removal"):
        await world.archive(before=300)
    monkeypatch.undo()
    assert world.rows()[0] == 2
    assert (await world.log.verify_chain()).ok
    assert (await world.archive(before=300)).removed == 254
    assert world.rows()[0] == 256
    assert (await world.log.verify_chain()).ok


async def test_a_verification_during_which_entries_leave_says_so_and_calls_nothing_broken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.log.append([body(n) for n in range(1400)])
    await world.sign()
    check = Checkers.check

    async def check_too_late(self: Checkers, chunk: Chunk) -> Segment | None:
        await world.archive(before=700)
        return await check(self, chunk)

    monkeypatch.setattr(Checkers, "check", check_too_late)
    with pytest.raises(
        Unavailable, match=r"entries before 512 .* were archived while they were verified: verify again"
    ):
        await world.log.verify_chain()
    assert (await world.log.verify_chain()).ok
    with world.database.superuser() as admin:  # what is broken behind the boundary stays broken
        admin.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        admin.execute("UPDATE log.entries SET kind = 'Graph' WHERE seq = 1100")
    broken = (await world.log.verify_chain()).broken
    assert broken is not None
    assert (broken.seq, broken.reason) == (1100, "ProjectionMismatch")


async def test_a_partition_that_is_replaced_while_leaf_hashes_are_read_hides_nothing_that_stayed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.log.append([body(n) for n in range(1400)])
    await world.sign()

    def crash(name: str) -> None:
        raise RuntimeError(name)

    with monkeypatch.context() as patch:
        patch.setattr(archivist_module, "failpoint", crash)
        with pytest.raises(RuntimeError, match="before_removal"):
            await world.archive(before=700)
    loop = asyncio.get_running_loop()

    def remove_first(*values: Any, **options: Any) -> Segment:
        assert asyncio.run_coroutine_threadsafe(world.archive(before=700), loop).result().removed
        monkeypatch.undo()
        return segment_of(*values, **options)

    monkeypatch.setattr(sweep_module, "segment_of", remove_first)
    found = await world.log.verify_chain()
    assert found.ok, found.broken
    assert world.rows()[0] == 512


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        pytest.param("DELETE FROM log.archived_entries WHERE seq = 7", 7, id="gone"),
        pytest.param(
            "ALTER TABLE log.archived_entries ALTER leaf DROP NOT NULL;"
            "UPDATE log.archived_entries SET leaf = NULL WHERE seq = 7",
            7,
            id="null",
        ),
    ],
)
async def test_a_leaf_hash_of_what_is_archived_that_is_gone_is_named(world: World, change: str, seq: int) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    with world.database.superuser() as admin:
        admin.execute("ALTER TABLE log.archived_entries DISABLE TRIGGER ALL")
        admin.execute(change)  # type: ignore[arg-type]
    broken = (await world.log.verify_chain()).broken
    assert broken is not None
    assert (broken.seq, broken.reason) == (seq, "EntryMissing")


async def test_another_folder_than_the_archive_is_refused(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    first, world.folder = world.folder, world.folder.with_name("other")
    with pytest.raises(Conflict, match=f"archived at {first}"):
        await world.archive(before=600)
    assert world.rows()[0] == 256


async def test_an_altered_entry_is_neither_archived_nor_removed(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    with world.database.superuser() as admin:
        admin.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        admin.execute("UPDATE log.entries SET octets = set_byte(octets, 40, get_byte(octets, 40) # 1) WHERE seq = 5")
    with pytest.raises(Corrupt):
        await world.archive(before=300)
    assert world.rows() == (2, 600)
    assert await world.archivist.boundary() is None


async def test_an_altered_archive_stops_the_removal(world: World) -> None:
    """With the verification of the archive removed, the rows would be gone and the archive worthless."""
    await world.log.append([body(n) for n in range(300)])
    await world.sign()
    await world.archive(before=0)
    bundle = world.folder / "tile/entries/000"
    octets = bytearray(bundle.read_bytes())
    octets[100] ^= 1
    bundle.write_bytes(octets)
    with pytest.raises(Corrupt, match="nothing was removed"):
        await world.archive(before=300)
    assert world.rows() == (2, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triplane.controllers.archiving.verify_export", lambda *_: _Passed)
        assert (await world.archive(before=300)).removed == 254


class _Passed:
    """A verification that finds nothing."""

    fault = None


@pytest.mark.parametrize("login", ["operator", "gateway", "verifier", "migrator"])
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT log.log_archive('o', 256, '', '', 256, '', '', '{}')", id="record"),
        pytest.param("SELECT log.log_remove_archived('o', '{}', 1)", id="remove"),
        pytest.param("SELECT log.make_room(0, 1)", id="make partitions"),
    ],
)
def test_15_no_login_may_archive_but_as_the_owner(database: Database, login: str, statement: str) -> None:
    with psycopg.connect(database.dsn(login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)  # type: ignore[arg-type]


async def test_15_the_owner_cannot_archive_what_no_checkpoint_vouches_for(world: World) -> None:
    await world.log.append([body(n) for n in range(300)])
    with world.database.superuser() as admin:
        admin.execute("SET ROLE triplane_log_owner")
        with pytest.raises(psycopg.Error) as refused:
            admin.execute("SELECT log.log_archive(%s, 256, '', '', 302, '', '', '{}')", (world.log.origin,))
        assert refused.value.sqlstate == "TP006"
        with pytest.raises(psycopg.Error, match="append-only"):
            admin.execute("DELETE FROM log.entries WHERE seq < 256")


async def test_the_first_entry_since_a_moment_is_found(world: World) -> None:
    receipts = await world.log.append([body(n) for n in range(600)])
    moment = datetime.fromisoformat(receipts[0].time)
    assert await first_since(world.log, moment) == 2
    assert await first_since(world.log, moment + timedelta(microseconds=1)) == 602
    assert await first_since(world.log, moment - timedelta(days=1)) == 0
    with pytest.raises(InvalidInput):
        await first_since(world.log, datetime(2020, 1, 1))


async def test_the_command_archives_with_the_installations_own_key_and_says_what_it_did(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = await world.log.append([body(n) for n in range(600)])
    home = world.database.server.home
    checkpoint = Checkpoint(world.log.origin, 602, bytes.fromhex((await world.log.verify_chain()).root))
    signers = NotaryKeyFolder(home / "secrets").signers()
    await world.checkpoints.publish(sign_checkpoint(checkpoint, world.log.origin, signers))
    monkeypatch.setenv("TRIPLANE_HOME", str(home))
    monkeypatch.setenv("TRIPLANE_DATABASE_NAME", world.database.name)

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["log", "archive", str(world.folder), *arguments])
        return result.exit_code, result.output

    assert (await run())[0] != 0, "which entries must be said"
    for days in ("0", "-1"):
        assert (await run("--older-than", days))[0] == 2
    refused = CliRunner().invoke(app, ["log", "archive", str(world.folder), "--older-than", "9999999999"])
    assert isinstance(refused.exception, InvalidInput)
    assert world.rows()[0] == 2
    assert (await run("--older-than", "1"))[1].count("nothing new to archive") == 1
    code, said = await run("--before", "300")
    assert (code, world.rows()[0]) == (0, 256), said
    assert "entries 0 to 255 archived; 254 removed from the database, which now begins at entry 256" in said
    assert await world.log.append([body(0)]) == [receipts[0]]


async def test_what_an_installation_reads_however_old_it_is_stays_and_is_guarded(world: World) -> None:
    await world.log.append([body(n) for n in range(1400)])
    await world.sign()
    await world.archive(before=1200)
    await world.sign()
    await world.archive(before=1400)
    assert world.rows()[0] == 1280
    begun = await world.log.query(EventFilter(types=frozenset({"origin.created", "principal.created"})))
    assert [item.seq for item in begun] == [0, 1]
    assert await world.log.get(begun[1].entry["id"]) == begun[1]
    assert (await world.log.verify_chain()).ok
    with world.database.superuser() as admin, pytest.raises(psycopg.Error, match="append-only"):
        admin.execute("UPDATE log.entries SET octets = octets WHERE seq = 1")


@pytest.mark.parametrize(
    ("statement", "seq", "reason"),
    [
        pytest.param(
            "UPDATE log.entries SET octets = set_byte(octets, 40, get_byte(octets, 40) # 1) WHERE seq = 1",
            1,
            "LeafHashMismatch",
            id="a bit of its octets",
        ),
        pytest.param(
            "UPDATE log.entries SET type = 'key.retired' WHERE seq = 1", 1, "ProjectionMismatch", id="a column"
        ),
        pytest.param("DELETE FROM log.entries WHERE seq = 1", 0, "EntryMissing", id="taken away"),
        pytest.param(
            "DELETE FROM log.entries WHERE type = 'log.archived' AND seq < 1024",
            0,
            "EntryMissing",
            id="what tells of it",
        ),
    ],
)
async def test_1_what_stayed_and_was_altered_is_found(world: World, statement: str, seq: int, reason: str) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    await world.log.append([body(n) for n in range(600, 1200)])
    await world.sign()
    await world.archive(before=1024)
    assert (await world.log.verify_chain()).ok
    with world.database.superuser() as admin:
        for table in world.partitions():
            admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        admin.execute(statement)  # type: ignore[arg-type]
    found = await world.log.verify_chain()
    assert found.broken is not None
    assert found.broken.reason == reason
    if reason != "EntryMissing":
        assert found.broken.seq == seq


async def changed(world: World, *statements: str) -> Any:
    """What verification says of 857 entries, 512 of them archived, after a superuser's statements."""
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    await world.log.append([body(n) for n in range(600, 853)])
    await world.sign()
    await world.archive(before=800)
    assert (await world.log.verify_chain()).last == 856
    with world.database.superuser() as admin:
        for table in ("log.heads", *world.partitions()):
            admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        for statement in statements:
            admin.execute(statement)  # type: ignore[arg-type]
    return (await world.log.verify_chain()).broken


@pytest.mark.parametrize("column", ["leaf = decode(repeat('ab', 32), 'hex')", "size = 856", "size = 100"])
async def test_a_head_that_does_not_fit_is_named_behind_an_archive_too(world: World, column: str) -> None:
    broken = await changed(world, f"UPDATE log.heads SET {column}")
    assert (broken.seq, broken.reason) == (857, "HeadMismatch")


async def test_a_log_cut_off_before_what_tells_of_its_archiving_is_broken_at_the_cut(world: World) -> None:
    broken = await changed(
        world,
        "DELETE FROM log.entries WHERE seq = 856",
        "UPDATE log.heads SET size = 856, leaf = e.leaf, time = e.time FROM log.entries e WHERE e.seq = 855",
    )
    assert (broken.seq, broken.reason) == (856, "EntryMissing")
    assert "the log ends before the `log.archived` that tells that entries 256 to 767 are archived" in broken.message


async def test_what_told_of_an_archiving_is_named_where_it_was_taken_from_the_chain(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    await world.log.append([body(600)])
    with world.database.superuser() as admin:
        for table in world.partitions():
            admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        admin.execute("DELETE FROM log.entries WHERE type = 'log.archived'")
    broken = (await world.log.verify_chain()).broken
    assert broken is not None
    assert (broken.seq, broken.reason) == (602, "EntryMissing")


async def test_a_range_that_begins_where_the_archive_ends_is_verified(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    await world.archive(before=300)
    found = await world.log.verify_chain(first=256)
    assert (found.first, found.last, found.ok) == (256, 602, True)


async def test_entries_are_archived_by_their_age_again_and_again(world: World) -> None:
    for first in (0, 300, 600):
        await world.log.append([body(n) for n in range(first, first + 300)])
        await world.sign()
        before = await first_since(world.log, datetime.now(UTC) + timedelta(hours=1))
        assert before == (await world.log.head())[0]
        assert (await world.archive(before=before)).upto == before // 256 * 256
    assert await first_since(world.log, datetime.now(UTC) - timedelta(days=1)) == 768
    assert world.rows()[0] == 768


async def test_appends_go_on_while_the_archivist_copies(world: World) -> None:
    await world.log.append([body(n) for n in range(600)])
    await world.sign()
    waiting = (
        "SELECT FROM pg_stat_activity WHERE application_name = 'triplane log archive' AND wait_event_type = 'Lock'"
    )
    with world.database.superuser() as admin, world.database.superuser() as holder:
        holder.autocommit = False
        holder.execute("LOCK TABLE log.archives IN SHARE ROW EXCLUSIVE MODE")  # as long as the copying takes
        archiving = asyncio.create_task(world.archive(before=300))
        async with asyncio.timeout(60):
            while admin.execute(waiting).fetchone() is None:
                assert not archiving.done()
                await asyncio.sleep(0.05)
        await world.log.append([body(600)])
        assert not archiving.done()
        holder.rollback()
        assert (await archiving).upto == 256
    assert (await world.log.verify_chain()).ok


def named(number: int, kind: str = "run.recorded") -> EventBody:
    """An entry that names two blobs, one where blobs are listed and one in its data."""
    digests = [f"sha256:{sha256(f'{number} {part}'.encode()).hexdigest()}" for part in ("blob", "data")]
    uid = digests[0].replace(":", "-") if kind.startswith("blob.") else f"u-{number}"
    subject = EventSubject(kind="Blob" if kind.startswith("blob.") else "AgentSession", namespace="", name="x", uid=uid)
    return EventBody(
        id=event_id(kind, uid, 1), type=kind, stream="system", actor="system", subject=subject,
        data={"digest": digests[1]}, blobs=(digests[0],),
    )  # fmt: skip


async def test_the_collector_still_knows_what_archived_entries_name(world: World) -> None:
    bodies = [named(n) for n in range(600)]
    bodies[7] = named(7, "blob.quarantined")
    await world.log.append(bodies)
    entries = await world.log.query(limit=1000)
    await world.sign()
    await world.archive(512)
    found = await world.log.archived_references()
    assert found.upto == 512
    kept = found.named
    assert kept == set(references_of(entries[:512]))
    assert found.needed == {
        bytes.fromhex(digest[7:])
        for entry in entries[:512]
        if entry.entry["type"] not in SPEAKS_OF_BLOBS
        for digest in entry.entry["blobs"]
    }
    assert len(found.needed) == 512 - 2 - 1
    assert len(kept) == 2 * (512 - 2 - 1), "but for the first two entries, and the one that only speaks of a blob"
    gathered = await LogReferences(world.log).gather()
    assert gathered == set(references_of(await world.log.query(after=511, limit=1000))) | kept


async def test_blobs_that_archived_entries_need_are_looked_up(world: World) -> None:
    bodies = [named(n) for n in range(600)]
    await world.log.append(bodies)
    await world.log.append([blob_erased(bodies[3].blobs[0], 1)])
    await world.sign()
    await world.archive(512)
    content = MemoryContentStore()
    found = [each async for each in check_blobs(content, world.log, MemorySessionStore(ManualClock()))]
    fates = {each.digest: (each.absence, each.seq) for each in found if isinstance(each, Absent)}
    assert fates[bodies[3].blobs[0]] == (Absence.ERASED, 602)
    assert fates[bodies[4].blobs[0]] == (Absence.LOST, None)
    assert fates[bodies[599].blobs[0]] == (Absence.LOST, 601)
    assert not fates.keys() & {body.data["digest"] for body in bodies}, "they never were blobs"


async def test_a_collector_that_has_read_on_learns_of_what_was_archived_behind_its_back(world: World) -> None:
    await world.log.append([named(n) for n in range(300)])
    references = LogReferences(world.log)
    early = set(await references.gather())
    await world.log.append([named(n) for n in range(300, 900)])
    expected = set(references_of(await world.log.query(limit=1000)))
    await world.sign()
    await world.archive(768)
    assert early < expected
    assert await references.gather() == expected


async def test_what_an_earlier_version_archived_names_nobody_knows_what(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*values: Any) -> EventBody:
        return log_archived(*values[:-1], None)

    await world.log.append([named(n) for n in range(600)])
    await world.sign()
    with monkeypatch.context() as patch:
        patch.setattr(archivist_module, "log_archived", without)
        await world.archive(256)
    with pytest.raises(Unavailable, match="an earlier version archived them"):
        await LogReferences(world.log).gather()
    await world.sign()
    await world.archive(512)  # what this one names is kept, but not what the earlier ones do
    with pytest.raises(Unavailable, match="an earlier version archived them"):
        await LogReferences(world.log).gather()
    assert (await world.log.verify_chain()).ok


HALF_OF_THEM = "DELETE FROM log.archived_references WHERE get_byte(digest, 0) < 128"


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(HALF_OF_THEM, id="half of them gone"),
        pytest.param("DELETE FROM log.archived_references", id="all gone"),
        pytest.param(
            "INSERT INTO log.archived_references SELECT origin, sha256('another'), true FROM log.heads",
            id="another one",
        ),
        pytest.param("UPDATE log.archived_references SET needed = NOT needed", id="called needed, or not"),
    ],
)
async def test_2_by_references_that_were_altered_nothing_is_collected_or_archived(world: World, statement: str) -> None:
    await world.log.append([named(n) for n in range(900)])
    await world.sign()
    await world.archive(256)
    await world.sign()
    await world.archive(512)
    assert (await world.log.verify_chain()).ok
    (*_, said) = await world.log.query(EventFilter(types=frozenset({"log.archived"})))
    with world.database.superuser() as admin:
        admin.execute("ALTER TABLE log.archived_references DISABLE TRIGGER ALL")
        admin.execute(statement)  # type: ignore[arg-type]
    altered = f"log.archived_references was altered: it has .* rows .*, entry {said.seq} says"
    with pytest.raises(Corrupt, match=f"{altered} .*--archive DIR"):
        await LogReferences(world.log).gather()
    broken = (await world.log.verify_chain()).broken
    assert broken is not None
    assert (broken.seq, broken.reason) == (said.seq, "ProjectionMismatch")
    await world.sign()
    with pytest.raises(Corrupt, match="altered"):
        await world.archive(768)
    assert world.rows()[0] == 512


async def test_2_what_tells_of_the_references_cannot_be_made_to_fit(world: World) -> None:
    """Without its leaf hash the entry is altered; without the entry nothing is known."""
    await world.log.append([named(n) for n in range(600)])
    await world.sign()
    await world.archive(512)
    with world.database.superuser() as admin:
        for table in world.partitions():
            admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        admin.execute(
            "UPDATE log.entries SET octets ="
            " convert_to(replace(convert_from(octets, 'UTF8'), 'references', 'referenceS'), 'UTF8')"
            " WHERE type = 'log.archived'"
        )
        with pytest.raises(Corrupt, match="which says what is archived, was altered: run `triplane log verify`"):
            await LogReferences(world.log).gather()
        admin.execute("DELETE FROM log.entries WHERE type = 'log.archived'")
    with pytest.raises(Unavailable, match="Nothing is collected"):
        await LogReferences(world.log).gather()


async def test_the_graph_is_rebuilt_from_archive_and_log(world: World) -> None:
    """As it was before anything was archived: the same entries in the same order."""
    await world.log.append([body(n) for n in range(900)])
    before = await world.log.query(limit=1000)
    await world.sign()
    await world.archive(768)
    with pytest.raises(ArchivedError):
        await world.log.query()
    whole = await whole_log(world.log, lambda path: (world.folder / path).read_bytes(), world.trust)
    pages: list[Recorded] = []
    while page := await whole.query(after=pages[-1].seq if pages else -1, limit=300):
        pages += page
    assert pages[: len(before)] == before
    only = EventFilter(types=frozenset({"principal.created", "log.archived"}))
    assert [item.entry["type"] for item in await whole.query(only)] == ["principal.created", "log.archived"]


async def test_an_archive_that_does_not_verify_or_reach_far_enough_rebuilds_nothing(world: World) -> None:
    await world.log.append([body(n) for n in range(900)])
    await world.sign()
    await world.archive(512)
    older = world.folder.with_name("older")
    shutil.copytree(world.folder, older)
    await world.log.append([body(n) for n in range(900, 1400)])
    await world.sign()
    await world.archive(1280)
    with pytest.raises(Conflict, match="holds 902 entries, but 1280 are archived"):
        await whole_log(world.log, lambda path: (older / path).read_bytes(), world.trust)
    bundle = world.folder / "tile/entries/001"
    octets = bundle.read_bytes()
    bundle.chmod(0o600)
    bundle.write_bytes(octets.replace(b'"v":1}', b'"v":2}', 1))
    with pytest.raises(Corrupt, match="the archive does not verify: LeafHashMismatch at entry 256"):
        await whole_log(world.log, lambda path: (world.folder / path).read_bytes(), world.trust)


async def archived(world: World) -> Wanted:
    """Everything, held against the archive."""
    opened = await open_archive(world.log, lambda path: (world.folder / path).read_bytes(), world.trust)
    return Wanted(trust=world.trust, archive=opened)


@pytest.mark.parametrize(
    ("statement", "seq", "reason"),
    [
        pytest.param(
            "DELETE FROM log.entry_ids WHERE seq = 300;"
            "INSERT INTO log.entry_ids SELECT origin, 'run.recorded/other/1', 300, body_sha256 FROM log.entry_ids"
            " WHERE seq = 301",
            300,
            "IdIndexMismatch",
            id="another id in the place of one",
        ),
        pytest.param(
            "UPDATE log.entry_ids SET body_sha256 = sha256('other') WHERE seq = 17", 17, "IdIndexMismatch", id="a body"
        ),
        pytest.param(
            "UPDATE log.entry_ids SET seq = 19 WHERE seq = 18", 18, "IdIndexMismatch", id="the number of another"
        ),
        pytest.param(
            "DELETE FROM log.archived_references WHERE digest = decode(repeat('cd', 32), 'hex')",
            5,
            "ProjectionMismatch",
            id="what one names",
        ),
    ],
)
async def test_what_is_kept_of_archived_entries_is_held_against_the_archive(
    world: World, statement: str, seq: int, reason: str
) -> None:
    await world.log.append([body(n, blobs=("sha256:" + "cd" * 32,) if n == 3 else ()) for n in range(900)])
    await world.sign()
    await world.archive(768)
    assert (await verify(world.log, world.checkpoints, await archived(world))).ok
    with world.database.superuser() as admin:
        for table in ("entry_ids", "archived_references"):
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        admin.execute(statement)  # type: ignore[arg-type]
    alone = await world.log.verify_chain()
    if "archived_references" in statement:
        assert alone.broken is not None, "its hash is in the log"
    else:
        assert alone.ok, "without the archive nobody can tell"
    found = await verify(world.log, world.checkpoints, await archived(world))
    assert found.broken is not None
    assert (found.broken.seq, found.broken.reason) == (seq, reason)


async def test_an_archive_is_compared_from_the_beginning_or_not_at_all(world: World) -> None:
    await world.log.append([body(n) for n in range(900)])
    await world.sign()
    with pytest.raises(InvalidInput, match="nothing of this log is archived"):
        with ExportFolder(world.folder) as target:
            await export_log(StoredLog(world.log, world.checkpoints), target, world.trust)
        await verify(world.log, world.checkpoints, await archived(world))
    await world.archive(768)
    for other in ({"first": 800}, {"last": 880}, {"behind": await world.checkpoints.latest()}):
        with pytest.raises(InvalidInput, match="leave out where to begin or end"):
            await verify(world.log, world.checkpoints, replace(await archived(world), **other))


async def test_the_command_holds_the_log_against_its_archive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.log.append([body(n) for n in range(900)])
    await world.sign()
    await world.archive(768)
    monkeypatch.setenv("TRIPLANE_HOME", str(world.database.server.home))
    monkeypatch.setenv("TRIPLANE_DATABASE_NAME", world.database.name)
    key = str(log_key(name=world.log.origin))

    async def run(folder: Path) -> tuple[int, str]:
        arguments = ["log", "verify", "--archive", str(folder), "--key", key]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        return result.exit_code, f"{result.output}{result.exception or ''}"

    code, said = await run(world.folder)
    assert code == 0, said
    assert "what is kept of its first 768 entries is held against it" in said
    assert "chain verified: 135 entries from entry 768" in said
    with world.database.superuser() as admin:
        admin.execute("ALTER TABLE log.checkpoints DISABLE TRIGGER ALL")
        admin.execute("DELETE FROM log.checkpoints")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["log", "verify", "--key", key])
    assert result.exit_code == 0
    assert "nothing signed vouches for what is before entry 768" in result.output
    assert "or an --earlier one, that you keep elsewhere: what is before is archived" in result.output
    code, said = await run(world.folder / "nowhere")
    assert code != 0
    assert "the archive does not verify" in said
