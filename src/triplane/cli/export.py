"""``triplane log export``: the whole log as files, for whoever is to check it without us."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, access, gateway_url, settings
from triplane.cli.output import Format, FormatOption, emit, note
from triplane.cli.trust import KeysOption, QuorumOption, WitnessesOption, trust_of
from triplane.errors import Unavailable

if TYPE_CHECKING:
    from triplane.audit.checkpoint import CheckpointTrust
    from triplane.controllers.exporting import Exported, LogSource, Progress

_SAID_EVERY = 65_536


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or an earlier export.", file_okay=False)],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Of a gateway's /log, or of an export on any web server."),
    ] = None,
    proofs: Annotated[bool, typer.Option("--proofs", help="Also a .tlog-proof of every entry.")] = False,
    keys: KeysOption = None,
    witnesses: WitnessesOption = None,
    quorum: QuorumOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Write the log up to its latest checkpoint as files (C2SP tlog-tiles), or what an earlier export lacks of it.

    Straight from the database as the verifier, or with --from over HTTP. A log that does not continue the earlier
    export is refused: keep that export, it is the evidence."""
    trust = trust_of(keys, witnesses, quorum) if keys else None
    token = _token(source, kubeconfig, context) if source is not None else None
    done, written, verified = asyncio.run(_export(folder, source, token, trust, proofs))
    document = {
        "origin": done.origin,
        "first": done.first,
        "size": done.size,
        "root": done.root,
        "files": done.files,
        "proofs": written,
        "verified": verified,
    }
    emit(document, output, lambda: typer.echo(_sentence(folder, done, written)))
    if not verified:
        note("warning: without --key nobody's signature was checked; the log's owner tells its key")
    note(f"check it without Triplane: python docs/auditor/verify.py {folder} --key KEY --earlier CHECKPOINT-YOU-KEPT")


async def _export(
    folder: Path, source: str | None, token: str | None, trust: "CheckpointTrust | None", proofs: bool
) -> "tuple[Exported, int, bool]":
    from triplane.adapters.filesystem.exportfolder import ExportFolder
    from triplane.controllers.exporting import StoredLog, export_log, write_proofs
    from triplane.wiring import own_trust

    async with AsyncExitStack() as stack:
        log = await _source(stack, source, token)
        if trust is None and isinstance(log, StoredLog):
            trust = own_trust(settings(), log.origin)
        target = stack.enter_context(ExportFolder(folder))
        done = await export_log(log, target, trust, _progress("entries"))
        written = write_proofs(target, _progress("proofs")) if proofs else 0
        return done, written, trust is not None


async def _source(stack: AsyncExitStack, url: str | None, token: str | None) -> "LogSource":
    if url is not None:
        from triplane.adapters.http.tiledlog import TiledLog

        return await stack.enter_async_context(TiledLog(url, token))
    from triplane.controllers.exporting import StoredLog
    from triplane.wiring import open_verifier

    backends = await open_verifier(settings())
    stack.push_async_callback(backends.close)
    return StoredLog(backends.log, backends.checkpoints)


def _token(url: str, kubeconfig: Path | None, context: str | None) -> str | None:
    """The caller's token is for this installation's gateway, or for where they say it is for."""
    if kubeconfig is None and context is None:
        try:
            if not f"{url.rstrip('/')}/".startswith(f"{gateway_url(settings())}/"):
                return None
        except Unavailable:
            return None
    return access(kubeconfig, context).token


def _progress(what: str) -> "Progress":
    said = 0

    def progress(count: int, size: int) -> None:
        nonlocal said
        if count - said >= _SAID_EVERY:
            said = count
            note(f"{count} of {size} {what}")

    return progress


def _sentence(folder: Path, done: "Exported", proofs: int) -> str:
    new = f"entries {done.first} to {done.size - 1} written" if done.first < done.size else "nothing new"
    more = f", {proofs} proofs" if proofs else ""
    return f"{folder}: {new}; {done.size} entries of {done.origin}, root {done.root} ({done.files} files{more})"
