"""A backup of what goes on working, and what comes back of it."""

import asyncio
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Database, PostgresServer, superuser
from tests.integration.backup.world import Installation, body, installation, nothing, opened, restore, signer
from tests.s3server import S3Server

from triplane.adapters.filesystem.backupfolder import BackupFolder
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.filesystem.exportfolder import ExportFolder
from triplane.adapters.postgres.archivist import PostgresArchivist
from triplane.adapters.postgres.connection import dsn
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.digest import digest_of_bytes
from triplane.audit.merkle import CompactRange
from triplane.audit.notekey import KeyRing, parse_key
from triplane.audit.subtrees import GrowingTree
from triplane.controllers import backup as taking
from triplane.controllers.archiving import archive_log
from triplane.controllers.exporting import StoredLog
from triplane.controllers.restore import Demands
from triplane.domain.backup import encode
from triplane.domain.events import blob_erased
from triplane.errors import Conflict, Corrupt
from triplane.ports import KeptContent
from triplane.settings import Settings


async def digests_of(store: KeptContent) -> list[str]:
    return [digest async for digest in store.list_digests()]


async def content_of(store: KeptContent, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.resolve(digest)])


@pytest.mark.parametrize(
    ("there", "here"), [("folder", "folder"), ("bucket", "bucket"), ("folder", "bucket"), ("bucket", "folder")]
)
async def test_what_is_restored_is_what_was_there(
    postgres_server: PostgresServer, s3_server: S3Server, tmp_path: Path, there: str, here: str
) -> None:
    kept = {"folder": dict[str, Any], "bucket": s3_server.settings}
    async with installation(postgres_server, tmp_path / "home", **kept[there]()) as source:
        digests = await source.fill()
        taken = await source.backup(tmp_path / "backups")
        size, head = await source.log.head()
        assert (taken.manifest.current.size, taken.manifest.current.head) == (size, head)
        assert taken.copied == taken.manifest.blobs.count == len(digests)
        with nothing(postgres_server, tmp_path / "elsewhere", **kept[here]()) as (settings, database):
            await restore(tmp_path / "backups", settings)
            async with opened(settings, database) as restored:
                await _is_the_same(source, restored, digests)
                assert (await restored.log.verify_chain()).root == taken.manifest.current.root
                # And it goes on: entries, sessions and their numbers.
                await restored.work(100, 3)
                assert (await restored.log.verify_chain()).count == size + 3


async def _is_the_same(source: Installation, restored: Installation, digests: list[str]) -> None:
    assert restored.origin == source.origin
    assert await restored.log.query(limit=10_000) == await source.log.query(limit=10_000)
    assert (await restored.log.verify_chain()).ok
    assert await restored.graph.find("Task", "team", "task-7") == await source.graph.find("Task", "team", "task-7")
    assert await restored.graph.page_edges(None, 100) == await source.graph.page_edges(None, 100)
    assert await restored.sessions.get("s1") == await source.sessions.get("s1")
    assert await restored.sessions.cursor("consumer") == 7
    assert await restored.sessions.owns_blob("team", digests[0])
    assert await digests_of(restored.content) == sorted(digests)
    for digest in digests:
        assert await content_of(restored.content, digest) == await content_of(source.content, digest)


async def test_a_backup_is_of_one_instant_while_others_append_and_store(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    stop = asyncio.Event()

    async def go_on() -> int:
        number = 1000
        while not stop.is_set():
            await source.work(number, 5)
            number += 5
        return number

    working = asyncio.create_task(go_on())
    before, _ = await source.log.head()
    try:
        taken = await source.backup(tmp_path / "backups")
    finally:
        stop.set()
        await working
    after, _ = await source.log.head()
    assert before <= taken.manifest.current.size <= after
    settings, database = empty
    await restore(tmp_path / "backups", settings)
    async with opened(settings, database) as restored:
        assert (await restored.log.verify_chain()).count == taken.manifest.current.size
        stored = set(await digests_of(restored.content))
        for recorded in await restored.log.query(limit=10_000):
            assert stored.issuperset(recorded.entry["blobs"]), f"entry {recorded.seq} names a blob that is not there"


async def test_blobs_that_are_there_from_earlier_are_not_copied_again(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    first = await source.backup(tmp_path / "backups")
    await source.work(500, 4)
    second = await source.backup(tmp_path / "backups")
    assert second.copied == 4
    assert second.manifest.blobs.count == first.manifest.blobs.count + 4
    assert [item.name for item in BackupFolder(tmp_path / "backups").sets()] == sorted([first.name, second.name])


async def test_nothing_is_held_afterwards(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    assert await source.content.held() == frozenset()


async def test_a_blob_that_nothing_names_is_left_out(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    garbage = await source.content.store(b"named by nothing")
    await source.backup(tmp_path / "backups")
    assert not await BackupFolder(tmp_path / "backups").content().exists(garbage)


async def test_erasure_reaches_earlier_sets_and_they_can_be_restored_all_the_same(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    digests = await source.fill()
    first = await source.backup(tmp_path / "backups")
    await source.content.delete(digests[3])
    await source.log.append([blob_erased(digests[3], 1)])
    await source.log.append([body(900, digests[3])])  # a review, say: it names the blob without storing it
    second = await source.backup(tmp_path / "backups")
    assert second.manifest.erased.count == 1
    assert second.manifest.lost.count == 0
    assert not await BackupFolder(tmp_path / "backups").content().exists(digests[3])
    settings, database = empty
    await restore(tmp_path / "backups", settings, name=first.name)
    async with opened(settings, database) as restored:
        assert await digests_of(restored.content) == sorted({*digests} - {digests[3]})


async def test_what_was_put_again_after_its_erasure_is_given_back_by_every_set_from_then_on(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    content = b"personal, and then agreed to"
    digest = await source.content.store(content)
    await source.log.append([body(0, digest)])
    await source.backup(tmp_path / "backups")
    await source.content.delete(digest)
    await source.log.append([blob_erased(digest, 1)])
    await source.backup(tmp_path / "backups")
    folder = BackupFolder(tmp_path / "backups")
    assert folder.erased() == {digest}
    await source.content.store(content)
    await source.sessions.own_blob("team", digest)
    third = await source.backup(tmp_path / "backups")
    assert (third.manifest.blobs.count, folder.erased()) == (1, frozenset())
    settings, _ = empty
    checked = await restore(tmp_path / "backups", settings, Demands(manifest=third.digest))
    assert checked.erased_since == frozenset()
    assert await digests_of(FilesystemContentStore(settings.cas)) == [digest]


async def test_what_was_put_again_after_its_erasure_and_is_gone_is_lost_and_not_taken_out_of_earlier_sets(
    source: Installation, tmp_path: Path
) -> None:
    digests = await source.fill()
    await source.backup(tmp_path / "backups")
    await source.log.append([blob_erased(digests[0], 1)])
    await source.content.delete(digests[0])
    assert await source.sessions.owns_blob("team", digests[0]), "put again, for an erasure takes it from its owners"
    taken = await source.backup(tmp_path / "backups")
    assert (taken.manifest.erased.count, taken.manifest.lost.count) == (0, 1)
    assert await BackupFolder(tmp_path / "backups").content().exists(digests[0])


async def test_two_installations_do_not_share_a_folder(source: Installation, tmp_path: Path) -> None:
    taken = await source.backup(tmp_path / "backups")
    (written,) = BackupFolder(tmp_path / "backups").sets()
    stranger = taken.manifest.current.model_copy(update={"origin": "elsewhere/0123"})
    octets = encode(taken.manifest.model_copy(update={"origins": (stranger,)}))
    (written.folder / "manifest.json").write_bytes(octets)
    (written.folder / "manifest.json.sha256").write_text(f"{digest_of_bytes(octets)[7:]}  manifest.json\n")
    with pytest.raises(Conflict, match=f"{taken.name} in this folder is of elsewhere/0123, another .*of its own"):
        await source.backup(tmp_path / "backups")
    assert [item.name for item in BackupFolder(tmp_path / "backups").sets()] == [taken.name]


async def test_a_lost_blob_is_named_and_does_not_keep_the_rest_from_being_saved(
    source: Installation, tmp_path: Path
) -> None:
    digests = await source.fill()
    await source.content.delete(digests[5])
    taken = await source.backup(tmp_path / "backups")
    assert taken.manifest.lost.count == 1
    (written,) = BackupFolder(tmp_path / "backups").sets()
    assert (written.folder / "blobs-lost").read_text() == f"{digests[5]} 0\n"


async def test_blobs_that_namespaces_own_and_that_cannot_be_read_are_named(
    source: Installation, tmp_path: Path
) -> None:
    """Nothing names them: putting a blob leaves no entry. One is gone, one a link, one altered."""
    owned = [await source.content.store(b"owned %d" % number) for number in range(4)]
    for digest in owned:
        await source.sessions.own_blob("team", digest)
    gone, linked, altered = (source.settings.home / "cas/blobs/sha256" / d[7:9] / d[9:11] / d[7:] for d in owned[:3])
    gone.unlink()
    linked.unlink()
    (tmp_path / "elsewhere.txt").write_bytes(b"owned 1")
    linked.symlink_to(tmp_path / "elsewhere.txt")
    altered.chmod(0o600)
    altered.write_bytes(b"altered")
    taken = await source.backup(tmp_path / "backups")
    (written,) = BackupFolder(tmp_path / "backups").sets()
    assert (written.folder / "blobs-lost").read_text() == "".join(f"{digest} 0\n" for digest in sorted(owned[:3]))
    assert taken.manifest.lost.count == 3


async def test_a_blob_that_was_altered_since_an_earlier_backup_is_given_back_from_that(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    (digest,) = await source.work(0, 1)
    await source.backup(tmp_path / "backups")
    path = source.settings.home / "cas/blobs/sha256" / digest[7:9] / digest[9:11] / digest[7:]
    path.chmod(0o600)
    path.write_bytes(b"altered")
    await source.backup(tmp_path / "backups")
    settings, database = empty
    await restore(tmp_path / "backups", settings)
    async with opened(settings, database) as restored:
        assert await restored.content.exists(digest)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        pytest.param("seq = 9", r"entry 10 names .* as its predecessor's leaf hash", id="an entry in the middle"),
        pytest.param("seq = 31", r"its head says 32 entries", id="the last entry"),
    ],
)
async def test_a_log_that_was_tampered_with_is_not_backed_up(
    source: Installation, tmp_path: Path, where: str, message: str
) -> None:
    await source.fill()
    with superuser(source.settings) as hand:
        hand.execute("ALTER TABLE log.entries DISABLE TRIGGER USER")
        hand.execute(f"UPDATE log.entries SET octets = octets || ' ' WHERE {where}")
    with pytest.raises(Corrupt, match=f"is not backed up: {message}.*`triplane log verify`"):
        await source.backup(tmp_path / "backups")
    assert not any(item.finished for item in BackupFolder(tmp_path / "backups").sets())


async def test_a_log_that_its_signed_checkpoint_contradicts_is_not_backed_up(
    source: Installation, tmp_path: Path
) -> None:
    await source.fill()
    size, _ = await source.log.head()
    forged = sign_checkpoint(Checkpoint(source.origin, size, b"\x07" * 32), source.origin, [signer()])
    await source.checkpoints.publish(forged)
    with pytest.raises(Corrupt, match=f"its signed checkpoint of {size} entries has root 0707"):
        await source.backup(tmp_path / "backups")


async def test_a_log_with_archived_entries_comes_back_with_their_hashes_and_every_stored_blob(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    named = await source.content.store(b"named by all of them")
    await source.content.store(b"named by nothing that is here")
    await source.log.append([body(n, named) for n in range(300)])
    note, _ = await source.checkpoint(signer())
    size, _ = await source.log.head()
    tree = CompactRange()
    for recorded in await source.log.query(limit=256):
        tree.add(bytes.fromhex(recorded.leaf_hash))
    with superuser(source.settings) as hand:
        hand.execute(
            "SELECT log.log_archive(%s, 256, %s, %s, %s, 'elsewhere', '2026-01-01T00:00:00.000000Z', '{}')",
            (source.origin, tree.root(), note, size),
        )
        hand.execute("SELECT log.log_remove_archived(%s, '{principal.created}', 1000)", (source.origin,))
    taken = await source.backup(tmp_path / "backups")
    assert taken.manifest.current.archived == 256
    assert taken.manifest.blobs.count == 2, "what archived entries name is not known: all is taken"
    settings, database = empty
    await restore(tmp_path / "backups", settings)
    async with opened(settings, database) as restored:
        assert await restored.log.head() == await source.log.head()
        assert (await restored.log.query(after=260, limit=1))[0].seq == 261
        await restored.work(400, 2)


async def archive(source: Installation, folder: Path) -> None:
    """What can go."""
    key = signer()
    _, pinned = await source.checkpoint(key)
    trust = CheckpointTrust(source.origin, KeyRing([parse_key(pinned)]))
    size, _ = await source.log.head()
    tree = GrowingTree()
    for recorded in await source.log.query(limit=10_000):
        tree.add(bytes.fromhex(recorded.leaf_hash))
    await source.checkpoints.keep(tree.completed)
    with ExportFolder(folder) as target:
        async with PostgresArchivist(dsn(source.settings, "migrator"), source.origin) as archivist:
            log = StoredLog(source.log, source.checkpoints)
            await archive_log(log, target, archivist, trust, before=size, place=str(folder), now=datetime.now(UTC))


async def test_a_lost_blob_that_only_archived_entries_need_is_named(source: Installation, tmp_path: Path) -> None:
    digests = await source.work(0, 300)
    await source.log.append([body(300)])
    await archive(source, tmp_path / "archive")
    assert (await source.log.query(after=255, limit=1))[0].seq == 256
    await source.content.delete(digests[5])
    await source.content.delete(digests[6])
    await source.log.append([blob_erased(digests[6], 1)])
    taken = await source.backup(tmp_path / "backups")
    assert (taken.manifest.lost.count, taken.manifest.erased.count) == (1, 1), "other digests never were blobs"
    (written,) = BackupFolder(tmp_path / "backups").sets()
    assert (written.folder / "blobs-lost").read_text() == f"{digests[5]} 0\n"


async def test_archived_entries_come_back_with_what_they_name(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.work(0, 300)
    await archive(source, tmp_path / "archive")
    await source.backup(tmp_path / "backups")
    settings, database = empty
    await restore(tmp_path / "backups", settings)
    async with opened(settings, database) as restored:
        assert (await restored.log.verify_chain()).ok
        assert await restored.log.archived_references() == await source.log.archived_references()


async def test_a_log_whose_archived_references_were_altered_is_not_backed_up(
    source: Installation, tmp_path: Path
) -> None:
    await source.work(0, 300)
    await archive(source, tmp_path / "archive")
    with superuser(source.settings) as hand:
        hand.execute("ALTER TABLE log.archived_references DISABLE TRIGGER ALL")
        hand.execute("DELETE FROM log.archived_references WHERE needed")
    with pytest.raises(Corrupt, match=r"log.archived_references was altered: .* restore the table from a backup"):
        await source.backup(tmp_path / "backups")


async def test_two_backups_do_not_write_into_one_folder_at_once(source: Installation, tmp_path: Path) -> None:
    async with BackupFolder(tmp_path / "backups").writing():
        with pytest.raises(Conflict, match="another backup"):
            await source.backup(tmp_path / "backups")


async def test_everything_in_a_backup_is_its_owners_alone(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups", (("install_secret", b"00"),))
    for path in (tmp_path / "backups").rglob("*"):
        if path.is_file() and "content" not in path.relative_to(tmp_path / "backups").parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700


async def test_interrupted_at_any_step_it_leaves_earlier_sets_and_the_next_one_is_whole(
    source: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        """Nobody handles it."""

    await source.fill()
    first = await source.backup(tmp_path / "backups")
    cut = 0
    for at in (1, 7, 13, 24, 30):
        await source.work(at * 1000, 3)
        left = at

        def fail(_name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerCut

        with monkeypatch.context() as patched:
            patched.setattr(taking, "failpoint", fail)
            try:
                await source.backup(tmp_path / "backups")
            except BaseExceptionGroup:
                cut += 1
            except PowerCut:
                cut += 1
        await restore(tmp_path / "backups", source.settings, name=first.name, load=False)
    assert cut >= 3
    last = await source.backup(tmp_path / "backups")
    assert last.manifest.lost.count == 0
    await restore(tmp_path / "backups", source.settings, name=last.name, load=False)
