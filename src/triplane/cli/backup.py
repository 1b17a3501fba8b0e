"""``triplane backup`` and ``restore``: log, graph, sessions and blobs as they were at one instant, and back."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import settings
from triplane.cli.output import Format, FormatOption, emit, note

if TYPE_CHECKING:
    from triplane.controllers.backup import Taken
    from triplane.controllers.restore import Checked
    from triplane.settings import Settings

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the backups, readable by nobody else.")]


def backup(
    folder: FolderArgument,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also the private keys that cannot be made anew (0600).")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Take a consistent set of log, graph, sessions and blobs into FOLDER, while the installation runs.

    Blobs that are there from earlier sets are not copied again. Run it as the installation's user, where its home is.
    Not in it: Kubernetes objects, and without --with-secrets no private key. Exit 1 if blobs that entries need are
    lost: the set is written all the same."""
    taken = asyncio.run(_backup(folder, with_secrets))
    current = taken.manifest.current
    document = {
        "set": taken.name,
        "manifest": taken.digest,
        "origin": current.origin,
        "size": current.size,
        "root": current.root,
        "checkpoint": current.checkpoint is not None,
        "blobs": taken.manifest.blobs.count,
        "octets": taken.manifest.blobs.octets,
        "copied": taken.copied,
        "copiedOctets": taken.octets,
        "erased": taken.manifest.erased.count,
        "lost": taken.manifest.lost.count,
        "archived": current.archived,
        "secrets": len(taken.manifest.secrets),
    }
    emit(document, output, lambda: _tell_taken(taken))
    if taken.manifest.lost.count:
        note(
            f"{taken.manifest.lost.count} blobs that entries need are lost (sets/{taken.name}/blobs-lost), or were "
            "erased while this ran: then another run is without them. See `triplane blob check`"
        )
    if current.archived:
        note(f"entries 0 to {current.archived - 1} are in the log's archive: back that up as well")
    if not with_secrets:
        note("private keys are not in it: see docs/how-to/backup-and-restore.md, or add --with-secrets")
    if taken.manifest.lost.count:
        raise typer.Exit(1)


def restore(
    folder: FolderArgument,
    set_: Annotated[str | None, typer.Option("--set", help="Which set; the newest when absent.")] = None,
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="sha256:… of its manifest, as the backup printed it.")
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor",
            help="A checkpoint kept elsewhere (file, or as TRIPLANE_ANCHORS): the set must not be behind it.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="The log's key, <origin>+<id>+<base64>; may be repeated.")
    ] = None,
    accept_rollback: Annotated[
        bool, typer.Option("--accept-rollback", help="Restore although an anchor has more entries.")
    ] = False,
    accept_erased: Annotated[
        bool,
        typer.Option(
            "--accept-erased", help="With --manifest: leave out blobs that the folder says were erased since."
        ),
    ] = False,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also the private keys that the set holds.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the set; restore nothing.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give a set back to an empty installation, before its first `triplane up`. Interrupted, it can be repeated.

    Every file and blob is checked first, the log again once it is loaded: chain, Merkle root, checkpoint, anchors."""
    checked = asyncio.run(
        _restore(folder, set_, manifest, anchor or [], key or [], accept_rollback, accept_erased, with_secrets, check)
    )
    current = checked.manifest.current
    document = {
        "set": checked.written.name,
        "manifest": checked.digest,
        "origin": current.origin,
        "size": current.size,
        "root": current.root,
        "restored": not check,
        "blobs": checked.manifest.blobs.count,
        "erasedSince": len(checked.erased_since),
        "erased": checked.manifest.erased.count,
        "lost": checked.manifest.lost.count,
        "unsigned": list(checked.unsigned),
        "secrets": len(checked.manifest.secrets) if with_secrets else 0,
        "behind": checked.behind,
    }
    emit(document, output, lambda: _tell_restored(checked, check))
    _note_left_out(checked, with_secrets)
    for entries in checked.unsigned:
        note(f"WARNING: {entries} are covered by no signature: whoever could write the folder could write them")
    if not key and current.checkpoint is not None:
        note("no --key was given: the checkpoint's root was compared, its signature was not")
    if checked.behind:
        note(f"accepted: {checked.behind}. The operator halts until it is told so too (TRIPLANE_ACCEPT_ROLLBACK)")


async def _backup(folder: Path, with_secrets: bool) -> "Taken":
    from datetime import UTC, datetime
    from importlib.metadata import version

    from triplane.adapters.filesystem.backupfolder import BackupFolder
    from triplane.backupwiring import open_sources, read_secrets
    from triplane.controllers.backup import Backup

    current = settings()
    secrets = read_secrets(current) if with_secrets else []
    async with open_sources(current) as sources:
        taking = Backup(
            sources.snapshot, sources.content, BackupFolder(folder), program=version("triplane"), progress=note
        )
        return await taking.take(datetime.now(UTC), secrets)


async def _restore(
    folder: Path,
    name: str | None,
    manifest: str | None,
    anchor: list[str],
    key: list[str],
    accept_rollback: bool,
    accept_erased: bool,
    with_secrets: bool,
    only_check: bool,
) -> "Checked":
    from triplane.adapters.filesystem.backupfolder import BackupFolder
    from triplane.backupwiring import anchors, signature_check
    from triplane.controllers.restore import Demands, Restore

    current = settings()
    source = BackupFolder(folder)
    signed = signature_check(key)
    seen = tuple(await anchors(current, anchor, signed, note))
    demands = Demands(manifest, seen, accept_rollback, signed, accept_erased)
    restoring = Restore(source, str(folder), note)
    checked = await restoring.check(source.choose(name), demands)
    if not only_check:
        await _load(current, restoring, checked, with_secrets)
    return checked


async def _load(current: "Settings", restoring: Any, checked: "Checked", with_secrets: bool) -> None:
    from triplane.backupwiring import keep_secret, open_targets
    from triplane.localcluster.serving import served

    async def keep(name: str, content: bytes) -> None:
        await asyncio.to_thread(keep_secret, current, name, content)

    async with served(current) as administrator, open_targets(current, administrator) as targets:
        await restoring.load(checked, targets.database, targets.content, keep if with_secrets else None)


def _tell_taken(taken: "Taken") -> None:
    facts, blobs = taken.manifest.current, taken.manifest.blobs
    typer.echo(f"{taken.name}: {facts.size} entries of {facts.origin}, root {facts.root}")
    typer.echo(f"{blobs.count} blobs of {blobs.octets} octets, {taken.copied} of {taken.octets} copied now")
    typer.echo(f"manifest {taken.digest}: keep this line elsewhere; restore takes it as --manifest")


def _note_left_out(checked: "Checked", with_secrets: bool) -> None:
    manifest, skipped = checked.manifest, len(checked.erased_since)
    note(f"{skipped} of {manifest.blobs.count} blobs are left out: erased since the set was taken")
    if manifest.erased.count:
        note(f"{manifest.erased.count} blobs were erased before (sets/{checked.written.name}/blobs-erased)")
    if manifest.lost.count:
        note(
            f"{manifest.lost.count} blobs that entries need were lost when the set was taken, and are not in it "
            f"(sets/{checked.written.name}/blobs-lost)"
        )
    if manifest.secrets and not with_secrets:
        note(f"{len(manifest.secrets)} private files are in the set and not restored: see --with-secrets")


def _tell_restored(checked: "Checked", only_checked: bool) -> None:
    facts = checked.manifest.current
    if only_checked:
        typer.echo(f"{checked.written.name} can be restored: {facts.size} entries of {facts.origin}")
        return
    typer.echo(f"{checked.written.name} restored: {facts.size} entries of {facts.origin} verified, root {facts.root}")
