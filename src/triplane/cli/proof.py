"""``triplane proof``: what lets somebody else check an entry, an artifact or a checkpoint without the log."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import note
from triplane.cli.trust import ArchiveOption, read_checkpoint, written
from triplane.errors import Archived, Corrupt, InvalidProof, NotFound, Unavailable

if TYPE_CHECKING:
    from triplane.cli.archived import ArchiveFolder
    from triplane.cli.gateway import Gateway

app = typer.Typer(help="Get checkpoints and proofs, for `triplane verify` anywhere.", no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here; default: standard output.", show_default=False)
]
SizeOption = Annotated[
    int | None,
    typer.Option("--size", help="In the checkpoint of so many entries; default: the latest.", min=1),
]
_SIGNED_SECONDS = 60.0


@app.command("checkpoint")
def checkpoint(file: FileOption = None, kubeconfig: KubeconfigOption = None, context: ContextOption = None) -> None:
    """Get the latest checkpoint. Keep it: it is what later finds a fork or a rollback."""
    with gateway(kubeconfig, context) as opened:
        _give(opened.octets("/log/checkpoint"), file)


@app.command("entry")
def entry(
    thing: Annotated[str, typer.Argument(metavar="SEQ|ID", help="Place of the entry in the log, or its id.")],
    file: FileOption = None,
    size: SizeOption = None,
    archive: ArchiveOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Get one entry with the proof that it is in the log (C2SP tlog-proof).

    With -n, an entry about that namespace; else the right to read the whole log is needed. An archived entry, named by
    its SEQ, is read in DIR; the proof that this is what was logged comes from the gateway."""
    named = {"seq": thing} if re.fullmatch(r"[0-9]+", thing, re.ASCII) else {"id": thing}
    with gateway(kubeconfig, context, namespace) as opened:
        _give(_proof(opened, named, size, namespace, _opened(archive)), file)


@app.command("consistency")
def consistency(
    old: Annotated[str, typer.Argument(metavar="SIZE|CHECKPOINT", help="An earlier size, or a checkpoint's file.")],
    to: Annotated[
        int | None, typer.Option("--to", help="Entries of the later checkpoint; default: the latest.", min=0)
    ] = None,
    file: FileOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Get the proof that a checkpoint continues an earlier one, as a witness is asked (C2SP tlog-witness)."""
    from triplane.audit.checkpoint import parse_checkpoint

    size = int(old) if re.fullmatch(r"[0-9]+", old, re.ASCII) else parse_checkpoint(read_checkpoint(Path(old)))[0].size
    with gateway(kubeconfig, context) as opened:
        _give(opened.octets("/v1/log/consistency", **{"from": size, "to": to}), file)


@app.command("artifact")
def artifact(
    thing: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Name, UID or digest of an accepted Artifact.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="A new or empty folder.")],
    content: Annotated[bool, typer.Option("--content", help="With the content.")] = False,
    archive: ArchiveOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Write all that speaks for an artifact into a folder: statements, log entries, and proofs that these are in the
    log under one checkpoint. Archived entries are read in DIR."""
    from triplane.cli.attest import shown_artifact
    from triplane.cli.blob import save
    from triplane.cli.bundle import write_bundle

    with gateway(kubeconfig, context, namespace) as opened:
        place = namespace or access(kubeconfig, context).namespace
        kept = _opened(archive)
        shown = shown_artifact(opened, thing, place, None, kept)
        keys = shown.evidence.trust.keys
        events = {key.created for key in keys} | {key.retired for key in keys if key.retired is not None}
        wanted = sorted(events | set(shown.evidence.entries))
        size = _signed_size(opened, wanted[-1])
        proofs = {
            seq: _proof(opened, {"seq": str(seq)}, size, None if seq in events else place, kept) for seq in wanted
        }
        evidence = replace(shown.evidence, entries={**_told(proofs, events), **shown.evidence.entries})
        write_bundle(folder, replace(shown, evidence=evidence), proofs)
        if content:
            save(opened, evidence.digest, folder / "content")
    note(f"{folder}: {len(evidence.envelopes)} statements, {len(proofs)} entries in the checkpoint of {size} entries")
    note(f"check it with: triplane verify {folder} --key KEY")


def _opened(archive: Path | None) -> "ArchiveFolder | None":
    from triplane.cli.archived import ArchiveFolder

    return None if archive is None else ArchiveFolder(archive)


def _proof(
    opened: "Gateway",
    named: Mapping[str, str],
    size: int | None,
    namespace: str | None,
    archive: "ArchiveFolder | None",
) -> bytes:
    """Raises ``Archived`` when the entry is, and it is not said where or which; ``Corrupt`` when what the archive holds
    is not what was logged."""
    from triplane.audit.tlogproof import make_bundle, parse_bundle

    try:
        return opened.octets("/v1/log/proof", **named, size=size, namespace=namespace)
    except Archived as gone:
        if archive is None or "seq" not in named:
            said = f"{gone}. Name the entry by its number, and their folder with --archive"
            raise Archived(said, upto=gone.upto) from gone
    seq = int(named["seq"])
    octets = archive.octets(seq)
    shown = parse_bundle(opened.octets("/v1/log/inclusion", seq=seq, size=size, namespace=namespace))
    try:
        made = make_bundle(seq, octets, shown.proof, shown.checkpoint)
    except InvalidProof as error:
        raise Corrupt(f"entry {seq} of the archive is not what was logged: {error}; restore the archive") from error
    if namespace and json.loads(octets)["subject"]["namespace"] != namespace:
        raise NotFound(f"entry {seq} is not about namespace {namespace}")
    return made


def _told(proofs: Mapping[int, bytes], events: set[int]) -> dict[int, bytes]:
    """The entries that tell of keys, from their proofs."""
    from triplane.audit.tlogproof import parse_bundle

    return {seq: parse_bundle(proofs[seq]).extra or b"" for seq in events}


def _signed_size(opened: "Gateway", last: int) -> int:
    """The size of a checkpoint that reaches this entry, which may be seconds old. Raises ``Unavailable``."""
    from triplane.audit.checkpoint import parse_checkpoint

    deadline = time.monotonic() + _SIGNED_SECONDS
    while True:
        try:
            size = parse_checkpoint(opened.octets("/log/checkpoint"))[0].size
        except NotFound:
            size = 0
        if size > last:
            return size
        if time.monotonic() > deadline:
            raise Unavailable(f"entry {last} is not signed yet, {size} entries are: does the operator run?")
        time.sleep(0.5)


def _give(octets: bytes, file: Path | None) -> None:
    if file is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.buffer.flush()
        return
    with written(file) as target:
        target.write(octets)
    note(f"{file} written")
