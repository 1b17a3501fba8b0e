"""``triplane verify``: what somebody shows of a log, checked here: no network, no database, no installation.

Exit codes: 0 it holds, 1 it does not (the reason, where, and what to do), 2 it could not be found out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.output import Format, FormatOption, emit, note, one_line
from triplane.cli.trust import QuorumOption, WitnessesOption, digest_of_file, read_file, tiles_in, trust_of
from triplane.errors import InvalidEntry, InvalidInput, InvalidNote, InvalidProof, TriplaneError

if TYPE_CHECKING:
    from triplane.audit.checkpoint import CheckpointTrust, SignedCheckpoint

KeyOption = Annotated[
    list[str], typer.Option("--key", help="The log's key, <origin>+<id>+<base64>; again for each while they change.")
]
_KEEP = "Rely on nothing of it, keep it as evidence, and ask whoever gave it to you"
_ADVICE = {
    "NotSigned": "Ask, on a way you trust, whether the log has another key; never take one from the log itself",
    "TooFewWitnesses": "Ask for a later copy, or ask the witnesses what they have seen",
    "Forked": "Keep both checkpoints: the key has signed two histories. Ask the witnesses what they have seen",
    "OldRootMismatch": "Keep both checkpoints: the log does not continue what you kept. Ask the witnesses",
}


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be checked, against what."""

    path: Path
    trust: "CheckpointTrust"
    earlier: Sequence[tuple[str, bytes]]
    growths: Sequence[bytes]
    keys: Path | None
    content: Path | None

    def refuse(self, what: str, **options: object) -> None:
        """Raise ``InvalidInput`` for what was given and would not be looked at: nobody may take it for checked."""
        for name, given in options.items():
            if given:
                raise InvalidInput(f"--{name} says nothing about {what}: it would not be checked; leave it out")


class _Fails(TriplaneError):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def verify(
    thing: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="A .tlog-proof, an artifact's folder, an exported log, or a checkpoint."),
    ],
    key: KeyOption,
    witnesses: WitnessesOption = None,
    quorum: QuorumOption = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", help="A checkpoint you kept: both must tell one story. May be repeated."),
    ] = None,
    growth: Annotated[
        list[Path] | None,
        typer.Option("--consistency", help="What leads from one to the other (`triplane proof consistency`)."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Trust these keys for statements, not those the log tells of.")
    ] = None,
    content: Annotated[Path | None, typer.Option("--content", help="Check that this file is the artifact.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check offline what somebody shows of a log: exit 0 it holds, 1 it does not, 2 that could not be found out."""
    trust = trust_of(key, witnesses, quorum)
    given = Given(
        thing,
        trust,
        [(str(path), read_file(path)) for path in earlier or ()],
        [read_file(path) for path in growth or ()],
        keys,
        content,
    )
    if given.growths and not given.earlier:
        given.refuse("a checkpoint alone, without --earlier", consistency=True)
    check = _kind_of(thing)
    try:
        lines = check(given)
    except (InvalidNote, InvalidProof, InvalidEntry, _Fails) as error:
        reason = getattr(error, "reason", type(error).__name__)
        advice = "" if isinstance(error, _Fails) else f". {_ADVICE.get(reason, _KEEP)}."
        document: dict[str, Any] = {"ok": False, "reason": reason, "message": f"{error}{advice}"}
        emit(document, output, lambda: None)
        note(f"NOT VERIFIED: {reason}: {one_line(document['message'])}")
        raise typer.Exit(1) from error
    emit({"ok": True, "found": lines}, output, lambda: typer.echo("\n".join(f"ok: {one_line(it)}" for it in lines)))
    if not given.earlier:
        note("note: without --earlier nobody can tell whether an older history was replaced; keep the checkpoint")


def _kind_of(path: Path) -> Callable[[Given], list[str]]:
    from triplane.audit.layout import CHECKPOINT
    from triplane.audit.tlogproof import HEADER
    from triplane.cli.bundle import is_bundle

    if path.is_dir():
        if is_bundle(path):
            return _artifact
        if (path / CHECKPOINT).is_file():
            return _export
        raise InvalidInput(f"{path} holds neither artifact.json nor checkpoint: no bundle and no exported log")
    octets = read_file(path)
    if octets.startswith(f"{HEADER}\n".encode()):
        return _entry
    if "\n\n\N{EM DASH} ".encode() in octets:
        return _checkpoint
    raise InvalidInput(
        f"{path} is neither a .tlog-proof nor a checkpoint; signed statements, such as a lineage bundle, are checked "
        "by `triplane attest verify`"
    )


def _entry(given: Given) -> list[str]:
    from triplane.audit.tlogproof import verify_bundle

    given.refuse("an entry", content=given.content, keys=given.keys)
    shown = verify_bundle(read_file(given.path), given.trust)
    subject = shown.entry["subject"]
    name = "/".join(part for part in (subject["namespace"], subject["name"]) if part)
    found = f"entry {shown.index} is in the log: {shown.entry['type']} {subject['kind']} {name}, {shown.entry['time']}"
    return [found, *_signed(given, shown.signed)]


def _checkpoint(given: Given) -> list[str]:
    from triplane.audit.checkpoint import verify_checkpoint

    given.refuse("a checkpoint", content=given.content, keys=given.keys)
    return _signed(given, verify_checkpoint(read_file(given.path), given.trust))


def _artifact(given: Given) -> list[str]:
    from triplane.audit.proven import verify_artifact
    from triplane.audit.verification import holds
    from triplane.cli.bundle import read_bundle_folder, read_keys, read_proofs, with_content

    trusted = None if given.keys is None else read_keys(given.keys)
    shown = read_bundle_folder(given.path, trusted)
    if shown.origin != given.trust.origin:
        other = f"it says that it is of the log {shown.origin}, the key given is of {given.trust.origin}"
        raise _Fails("OtherOrigin", f"{other}. {_KEEP}.")
    evidence = shown.evidence
    if given.content is not None:
        evidence = with_content(evidence, given.content)
    signed, steps = verify_artifact(evidence, read_proofs(given.path), given.trust, trusted)
    bad = next((step for step in steps if step.ok is False), None)
    if bad is not None:
        raise _Fails("StatementsRefused", f"step {bad.number} ({bad.name}): {bad.found}. {_KEEP}.")
    if not holds(steps):
        raise _Fails("StatementsRefused", f"a step had nothing to look at. {_KEEP}.")
    found = f"artifact {evidence.named.get('name')} {evidence.digest} was produced, reviewed and accepted"
    said = [f"{step.name}: {step.found}" for step in steps if step.ok]
    return [found, *said, f"{len(evidence.entries)} entries are in the log", *_signed(given, signed)]


def _export(given: Given) -> list[str]:
    from triplane.audit.exported import verify_export

    given.refuse("an exported log, which is held against --earlier itself", consistency=given.growths)
    given.refuse("an exported log", keys=given.keys)

    content = None if given.content is None else digest_of_file(given.content)
    found = verify_export(tiles_in(given.path), given.trust, given.earlier)
    if found.fault is not None:
        raise _Fails(found.fault.reason, found.fault.message.removeprefix(f"{found.fault.reason} "))
    said = f"{found.count} entries of {found.origin}, root {found.root}: unbroken, and what was signed"
    lines = [said, *(f"consistent with {name}" for name, _ in given.earlier)]
    if content is not None:
        places = found.artifacts.get(content)
        if not places:
            raise _Fails("ContentNotRecorded", f"{given.content} is {content}, which no entry records. {_KEEP}.")
        numbers = ", ".join(map(str, places[:10])) + (", …" if len(places) > 10 else "")
        lines.append(f"{given.content} is artifact {content}, of entries {numbers}")
    return lines


def _signed(given: Given, signed: "SignedCheckpoint") -> list[str]:
    """Who signed the checkpoint, and that it stands to those that were kept as it must."""
    from datetime import UTC, datetime

    from triplane.audit.checkpoint import parse_checkpoint
    from triplane.audit.proven import read_growth, verify_kept

    checkpoint = signed.checkpoint
    lines = [f"checkpoint of {checkpoint.size} entries of {checkpoint.origin}, root {checkpoint.root.hex()}"]
    for item in signed.cosigned:
        when = datetime.fromtimestamp(item.timestamp or 0, UTC).isoformat()
        lines.append(f"cosigned by {item.key.name} at {when}")
    growths = [read_growth(octets) for octets in given.growths]
    used = [verify_kept(checkpoint, octets, given.trust, growths) for _, octets in given.earlier]
    for growth in growths:
        if growth not in used:
            given.refuse(f"{growth.old_size} entries, of which no checkpoint was kept or shown", consistency=True)
    for name, octets in given.earlier:
        lines.append(f"consistent with {name}: {parse_checkpoint(octets)[0].size} entries")
    return lines
