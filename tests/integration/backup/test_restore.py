"""What is refused: a set that was altered, a place that is in use, a past that others have left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Database, superuser
from tests.integration.backup.world import Installation, opened, quiet, restore, signer

from triplane.adapters.filesystem.backupfolder import BackupFolder
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.postgres.connection import UNFINISHED
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.adapters.postgres.migrate import migrate
from triplane.audit.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from triplane.audit.digest import digest_of_bytes
from triplane.backupwiring import anchors, read_secrets, signature_check
from triplane.controllers import restore as restoring
from triplane.controllers.restore import Demands
from triplane.domain.backup import RestoreBehind, Seen, decode, encode
from triplane.domain.events import blob_erased
from triplane.errors import Conflict, Contradicted, Corrupt, InvalidInput, InvalidNote, NotFound, Unavailable
from triplane.ports.backup import NotEmpty
from triplane.settings import Settings


def _flip(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(octets)


def _cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def _some_blob(folder: Path) -> Path:
    return next(path for path in sorted((folder / "content" / "blobs").rglob("*")) if path.is_file())


FILES = (
    "manifest.json",
    "manifest.json.sha256",
    "tables/log.entries",
    "tables/log.heads",
    "tables/log.entry_ids",
    "tables/log.checkpoints",
    "tables/sessions.sessions",
    "tables/graph.resources",
    "blobs",
    "blobs-erased",
    "secrets/install_secret",
    "a blob",
)
ALTERATIONS: dict[str, Callable[[Path], None]] = {"one bit": _flip, "cut": _cut, "gone": Path.unlink}


async def test_an_altered_file_of_any_kind_is_refused_by_name_before_anything_is_written(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    digests = await source.fill()
    await source.sessions.disown_blob(digests[0])
    await source.content.delete(digests[0])
    await source.log.append([blob_erased(digests[0], 1)])
    await source.checkpoint(signer())
    taken = await source.backup(tmp_path / "backups", (("install_secret", b"00" * 32),))
    settings, _ = empty
    for file in FILES:
        for how, alter in ALTERATIONS.items():
            folder = tmp_path / "altered"
            shutil.copytree(tmp_path / "backups", folder)
            path = _some_blob(folder) if file == "a blob" else folder / "sets" / taken.name / file
            alter(path)
            # A set without its manifest is an unfinished one.
            with pytest.raises((Corrupt, InvalidInput)) as refused:
                await restore(folder, settings)
            named = taken.name if file.startswith("manifest") else str(path)
            assert named in str(refused.value), f"{file}, {how}: {refused.value}"
            shutil.rmtree(folder)
    assert not settings.cas.exists()
    with superuser(settings) as hand:
        made = hand.execute("SELECT to_regclass('log.heads'), to_regclass(%s::text)", (UNFINISHED,)).fetchone()
        assert made == (None, None)


async def test_a_manifest_that_was_made_to_fit_is_refused_by_its_root_and_by_its_digest(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    """Whoever can write the folder can make every digest in it fit: the log's own proofs and a digest kept elsewhere
    are what tells."""
    await source.fill()
    taken = await source.backup(tmp_path / "backups")
    (written,) = BackupFolder(tmp_path / "backups").sets()
    manifest = decode(written.manifest(), "here")
    forged_origin = manifest.current.model_copy(update={"root": "7" * 64})
    octets = encode(manifest.model_copy(update={"origins": (forged_origin,)}))
    (written.folder / "manifest.json").write_bytes(octets)
    (written.folder / "manifest.json.sha256").write_text(f"{digest_of_bytes(octets)[7:]}  manifest.json\n")
    settings, _ = empty
    with pytest.raises(Corrupt, match=r"loaded log .* has 32 entries with root .* the manifest says 32 with root 7777"):
        await restore(tmp_path / "backups", settings)
    with pytest.raises(Corrupt, match=f"wanted was {taken.digest}"):
        await restore(tmp_path / "backups", settings, Demands(manifest=taken.digest))
    with pytest.raises(Unavailable, match="repeat `triplane restore`"):  # what was loaded is nobody's to use
        await PostgresEventLog(empty[1].dsn("operator"), writer="operator").open()


async def test_entries_rewritten_with_all_hashes_are_refused_by_the_signed_checkpoint(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    key = signer()
    note, pinned = await source.checkpoint(key)
    await source.backup(tmp_path / "backups")
    (written,) = BackupFolder(tmp_path / "backups").sets()
    manifest = decode(written.manifest(), "here")
    signed, _ = parse_checkpoint(note)
    other = sign_checkpoint(Checkpoint(signed.origin, signed.size, b"\x07" * 32), signed.origin, [signer()]).decode()
    octets = encode(
        manifest.model_copy(update={"origins": (manifest.current.model_copy(update={"checkpoint": other}),)})
    )
    (written.folder / "manifest.json").write_bytes(octets)
    (written.folder / "manifest.json.sha256").write_text(f"{digest_of_bytes(octets)[7:]}  manifest.json\n")
    settings, _ = empty
    with pytest.raises(Contradicted, match="not the ones that were signed"):
        await restore(tmp_path / "backups", settings)
    with pytest.raises(InvalidNote, match="no key pinned"):
        await restore(tmp_path / "backups", settings, Demands(signed=signature_check([pinned])), load=False)


async def test_the_pinned_key_is_what_the_checkpoint_is_checked_by(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    _, pinned = await source.checkpoint(signer())
    await source.backup(tmp_path / "backups")
    demands = Demands(signed=signature_check([pinned]))
    checked = await restore(tmp_path / "backups", source.settings, demands, load=False)
    assert checked.manifest.current.checkpoint is not None


async def test_a_set_whose_signature_was_taken_out_is_refused_where_a_key_is_pinned(
    source: Installation, tmp_path: Path
) -> None:
    await source.fill()
    _, pinned = await source.checkpoint(signer())
    taken = await source.backup(tmp_path / "backups")
    (written,) = BackupFolder(tmp_path / "backups").sets()
    stripped = taken.manifest.current.model_copy(update={"checkpoint": None})
    octets = encode(taken.manifest.model_copy(update={"origins": (stripped,)}))
    (written.folder / "manifest.json").write_bytes(octets)
    (written.folder / "manifest.json.sha256").write_text(f"{digest_of_bytes(octets)[7:]}  manifest.json\n")
    await restore(tmp_path / "backups", source.settings, load=False)
    with pytest.raises(InvalidNote, match=f"has no signed checkpoint of {source.origin}, and a key is pinned"):
        await restore(tmp_path / "backups", source.settings, Demands(signed=signature_check([pinned])), load=False)


async def test_entries_behind_the_signed_ones_are_named(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    _, pinned = await source.checkpoint(signer())
    demands = Demands(signed=signature_check([pinned]))
    await source.backup(tmp_path / "backups")
    assert (await restore(tmp_path / "backups", source.settings, demands, load=False)).unsigned == ()
    await source.work(700, 3)
    await source.backup(tmp_path / "backups")
    checked = await restore(tmp_path / "backups", source.settings, demands, load=False)
    assert checked.unsigned == (f"entries 32 to 34 of {source.origin}",)


async def test_the_list_of_what_was_erased_takes_nothing_from_a_manifest_that_was_kept(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    """No manifest names it: whoever can write the folder can call any blob erased."""
    digests = await source.fill()
    taken = await source.backup(tmp_path / "backups")
    gone = sorted(digests)[:2]
    (tmp_path / "backups" / "erased").write_text("".join(f"{digest}\n" for digest in [*gone, "sha256:" + "0" * 64]))
    for digest in gone:
        await BackupFolder(tmp_path / "backups").content().delete(digest)
    assert (await restore(tmp_path / "backups", empty[0], load=False)).erased_since == frozenset(gone)
    with pytest.raises(Conflict, match=rf"lists 2 blobs .*{gone[0]}, {gone[1]}\. .*--accept-erased"):
        await restore(tmp_path / "backups", empty[0], Demands(manifest=taken.digest))
    assert not empty[0].cas.exists()
    demands = Demands(manifest=taken.digest, accept_erased=True)
    assert (await restore(tmp_path / "backups", empty[0], demands, load=False)).erased_since == frozenset(gone)


@pytest.mark.parametrize("occupied", ["a log", "blobs", "sessions"])
async def test_what_is_in_use_is_not_restored_into(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path, occupied: str
) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    settings, database = empty
    if occupied == "blobs":
        stranger = await FilesystemContentStore(settings.cas).store(b"somebody's")
        message = f"1 blobs that the backup does not name, the first {stranger}"
    else:
        passwords = {path.name[3:]: path.read_text().strip() for path in settings.secrets.glob("db_*")}
        origin = migrate(database.dsn("migrator"), passwords, database=database.name)
        message = r"it holds rows: log.entries 2, log.entry_ids 2, log.heads 1"
        if occupied == "sessions":
            with superuser(settings) as hand:
                hand.execute("INSERT INTO sessions.cursors VALUES ('x', 1)")
            message = r"it holds rows: .*sessions.cursors 1"
    with pytest.raises(NotEmpty, match=message):
        await restore(tmp_path / "backups", settings)
    if occupied != "blobs":
        log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
        assert log.origin == origin
        await log.close()


async def test_a_restore_that_was_interrupted_anywhere_lets_nobody_in_and_can_be_repeated(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triplane.adapters.postgres import loading

    class PowerCut(BaseException):
        """Nobody handles it."""

    await source.fill()
    taken = await source.backup(tmp_path / "backups")
    settings, database = empty
    passed = 0
    for at in (1, 2, 20, 33, 40, 50, 55):
        left = at

        def fail(_name: str) -> None:
            nonlocal left, passed
            left -= 1
            if left == 0:
                raise PowerCut

        monkeypatch.setattr(loading, "failpoint", fail)
        monkeypatch.setattr(restoring, "failpoint", fail)
        try:
            await restore(tmp_path / "backups", settings)
        except PowerCut:
            passed += 1
            with pytest.raises(Unavailable):
                await PostgresEventLog(database.dsn("operator"), writer="operator").open()
        else:
            break
    assert passed >= 5
    monkeypatch.undo()
    if passed == 7:
        await restore(tmp_path / "backups", settings)
    async with opened(settings, database) as restored:
        assert (await restored.log.verify_chain()).root == taken.manifest.current.root


async def test_nobody_migrates_while_a_restore_is_unfinished(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    settings, database = empty

    def fail(_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(restoring, "failpoint", fail)
    with pytest.raises(ZeroDivisionError):
        await restore(tmp_path / "backups", settings)
    passwords = {path.name[3:]: path.read_text().strip() for path in settings.secrets.glob("db_*")}
    with pytest.raises(Unavailable, match="a restore into this database has begun and not ended"):
        migrate(database.dsn("migrator"), passwords, database=database.name)


# What others have seen


async def test_a_restore_behind_an_anchor_is_refused_with_the_ways_out(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    await source.work(700, 10)
    note, _ = await source.checkpoint(signer())
    anchor = tmp_path / "anchor"
    anchor.write_bytes(note)
    settings, database = empty
    # Without the anchor nothing speaks against it: this is what the protection is for.
    await restore(tmp_path / "backups", settings, load=False)
    seen = tuple(await anchors(settings, [str(anchor)], None, quiet))
    with pytest.raises(RestoreBehind) as refused:
        await restore(tmp_path / "backups", settings, Demands(anchors=seen))
    message = str(refused.value)
    assert f"file:{anchor} holds a checkpoint of 42 entries" in message
    assert "entries 32 to 41 were cut off" in message
    assert "--accept-rollback" in message
    assert not settings.cas.exists()
    accepted = await restore(tmp_path / "backups", settings, Demands(anchors=seen, accept_rollback=True))
    assert "42 entries" in accepted.behind
    async with opened(settings, database) as restored:
        assert await restored.log.head() == (32, accepted.manifest.current.head)


async def test_an_older_anchor_of_the_same_log_is_continued(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    note, _ = await source.checkpoint(signer())
    await source.work(700, 10)
    await source.backup(tmp_path / "backups")
    seen = (Seen("elsewhere", parse_checkpoint(note)[0]),)
    await restore(tmp_path / "backups", empty[0], Demands(anchors=seen))


@pytest.mark.parametrize("size", [pytest.param(20, id="smaller"), pytest.param(32, id="of the same size")])
async def test_an_anchor_with_another_root_is_never_accepted(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path, size: int
) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    seen = (Seen("elsewhere", Checkpoint(source.origin, size, b"\x07" * 32)),)
    with pytest.raises(Contradicted, match=f"elsewhere holds a checkpoint of {size} entries with root 0707"):
        await restore(tmp_path / "backups", empty[0], Demands(anchors=seen, accept_rollback=True))
    with pytest.raises(Unavailable):
        await PostgresEventLog(empty[1].dsn("operator"), writer="operator").open()


async def test_an_anchor_of_another_log_is_never_accepted(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    await source.backup(tmp_path / "backups")
    seen = (Seen("elsewhere", Checkpoint("host/0123", 5, b"\x07" * 32)),)
    with pytest.raises(Contradicted, match="begun anew, or exchanged"):
        await restore(tmp_path / "backups", source.settings, Demands(anchors=seen, accept_rollback=True), load=False)


async def test_the_notarys_own_record_of_the_home_is_an_anchor(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    note, _ = await source.checkpoint(signer())
    (source.settings.home / "notary").mkdir()
    (source.settings.home / "notary" / "checkpoint").write_bytes(note)
    (seen,) = await anchors(source.settings, [], None, quiet)
    assert (seen.place, seen.checkpoint.size) == ("the notary's own record", 32)


async def test_a_configured_anchor_is_compared_without_being_named(source: Installation, tmp_path: Path) -> None:
    await source.fill()
    note, _ = await source.checkpoint(signer())
    (source.settings.home / "anchor").mkdir()
    (source.settings.home / "anchor" / "checkpoint").write_bytes(note)
    (seen,) = await anchors(source.settings, [], None, quiet)
    assert seen.place.endswith("/anchor/checkpoint")
    with pytest.raises(InvalidInput, match="holds no checkpoint"):
        await anchors(source.settings, [str(tmp_path / "nowhere")], None, quiet)
    _, stranger = await source.checkpoint(signer())
    with pytest.raises(InvalidNote):
        await anchors(source.settings, [], signature_check([stranger]), quiet)


# Which set, and the secrets


async def test_an_unfinished_set_says_so_and_is_not_taken_silently_for_an_older_one(
    source: Installation, tmp_path: Path
) -> None:
    await source.fill()
    first = await source.backup(tmp_path / "backups")
    second = await source.backup(tmp_path / "backups")
    (tmp_path / "backups" / "sets" / second.name / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match=f"unfinished: {second.name} was interrupted.*--set: {first.name}"):
        await restore(tmp_path / "backups", source.settings, load=False)
    with pytest.raises(NotFound, match="is unfinished: it was interrupted"):
        await restore(tmp_path / "backups", source.settings, name=second.name, load=False)
    await restore(tmp_path / "backups", source.settings, name=first.name, load=False)


async def test_secrets_come_back_as_they_were_and_never_over_others(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    (source.settings.secrets / "install_secret").write_text("ab" * 32 + "\n")
    (source.settings.secrets / "signing").mkdir()
    (source.settings.secrets / "signing" / "current").write_text("key\n")
    found = tuple(read_secrets(source.settings))
    assert [name for name, _ in found] == ["install_secret", "signing/current"]
    await source.backup(tmp_path / "backups", found)
    settings, _ = empty
    (settings.secrets / "install_secret").write_text("another\n")
    with pytest.raises(NotEmpty, match="install_secret is there already"):
        await restore(tmp_path / "backups", settings)
    (settings.secrets / "install_secret").unlink()
    await restore(tmp_path / "backups", settings)
    for name, content in found:
        path = settings.secrets / name
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (content, 0o600)
