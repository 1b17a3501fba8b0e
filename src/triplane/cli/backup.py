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
    Not in it: Kubernetes objects, and without --with-secrets no private key."""
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
        note(f"{taken.manifest.lost.count} blobs that entries need are lost (sets/{taken.name}/blobs-lost)")
    if current.archived:
        note(f"entries 0 to {current.archived - 1} are in the log's archive: back that up as well")
    if not with_secrets:
        note("private keys are not in it: see docs/how-to/backup-and-restore.md, or add --with-secrets")


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
    check: Annotated[bool, typer.Option("--check", help="Only check the set; restore nothing.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give a set back to an empty installation, before its first `triplane up`. Interrupted, it can be repeated.

    Every file and blob is checked first, the log again once it is loaded: chain, Merkle root, checkpoint, anchors."""
    checked = asyncio.run(_restore(folder, set_, manifest, anchor or [], key or [], accept_rollback, check))
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
        "behind": checked.behind,
    }
    emit(document, output, lambda: _tell_restored(checked, check))
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
    only_check: bool,
) -> "Checked":
    from triplane.adapters.filesystem.backupfolder import BackupFolder
    from triplane.backupwiring import anchors, signature_check
    from triplane.controllers.restore import Demands, Restore

    current = settings()
    source = BackupFolder(folder)
    signed = signature_check(key)
    demands = Demands(manifest, tuple(await anchors(current, anchor, signed, note)), accept_rollback, signed)
    restoring = Restore(source, str(folder), note)
    checked = await restoring.check(source.choose(name), demands)
    if not only_check:
        await _load(current, restoring, checked)
    return checked


async def _load(current: "Settings", restoring: Any, checked: "Checked") -> None:
    from triplane.backupwiring import keep_secret, open_targets
    from triplane.localcluster.serving import served

    async def keep(name: str, content: bytes) -> None:
        await asyncio.to_thread(keep_secret, current, name, content)

    async with served(current) as administrator, open_targets(current, administrator) as targets:
        await restoring.load(checked, targets.database, targets.content, keep)


def _tell_taken(taken: "Taken") -> None:
    facts, blobs = taken.manifest.current, taken.manifest.blobs
    typer.echo(f"{taken.name}: {facts.size} entries of {facts.origin}, root {facts.root}")
    typer.echo(f"{blobs.count} blobs of {blobs.octets} octets, {taken.copied} of {taken.octets} copied now")
    typer.echo(f"manifest {taken.digest}: keep this line elsewhere; restore takes it as --manifest")


def _tell_restored(checked: "Checked", only_checked: bool) -> None:
    facts = checked.manifest.current
    if only_checked:
        typer.echo(f"{checked.written.name} can be restored: {facts.size} entries of {facts.origin}")
        return
    typer.echo(f"{checked.written.name} restored: {facts.size} entries of {facts.origin} verified, root {facts.root}")
