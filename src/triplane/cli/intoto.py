"""The lineage of an artifact as an in-toto bundle: what was signed about it, and about everything it was made from.

JSON Lines (https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md): each line is a DSSE envelope, in the
octets that the log has the digest of. Lines of ours, which other tools must pass over ("Consumers MUST ignore
unrecognized lines"), say which artifacts they speak for, and bring the log entries and keys that
``triplane.audit.verification`` holds them against. The order of lines means nothing, and a line that is missing is
found by whom it speaks for: that artifact does not verify.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from triplane.cli.output import Format, colour, emit, note, one_line
from triplane.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from triplane.audit.keys import TrustBundle
    from triplane.cli.bundle import Shown
    from triplane.cli.gateway import Gateway

FORMAT: Final = "https://triplane.dev/lineage-bundle/v1"
_OURS: Final = "triplane"
_MOST: Final = 1 << 28
"""Octets of a bundle that is read."""
_MANY: Final = 100_000


@dataclass
class Bundle:
    """What a file holds. Nothing of it is trusted yet."""

    shown: "list[Shown]" = field(default_factory=list)
    """Every artifact that it speaks for, the one it was made for first."""
    own_keys: bool = False
    """The keys are those of the file."""
    passed_over: int = 0
    """Lines that are of somebody else."""


def export(opened: "Gateway", thing: str, namespace: str) -> None:
    """Print the bundle, line by line as it is gathered."""
    written: set[str] = set()
    shown = 0
    for number, document in enumerate(_artifacts(opened, thing, namespace)):
        for line in _lines(document, wanted=number == 0):
            if line not in written:
                written.add(line)
                typer.echo(line)
        shown += 1
    note(f"{shown} artifacts; check it with: triplane attest verify FILE.intoto.jsonl --keys KEYS")


def _artifacts(opened: "Gateway", thing: str, namespace: str) -> "Iterator[Shown]":
    """What there is to show for the artifact and those it was made from, nearest first."""
    from triplane.cli.attest import shown_artifact

    first = shown_artifact(opened, thing.rpartition("/")[2], namespace, None)
    if not is_accepted(first):
        raise InvalidInput(f"artifact {thing} is not accepted: nothing was signed that says so")
    yield first
    uid = str(first.artifact["uid"])
    ended = False
    for line in opened.lines(f"/v1/provenance/{uid}", way="up", limit=_MANY, depth=_MANY):
        node = line.get("node") or {}
        if node.get("kind") == "Artifact" and node["id"] != uid:
            shown = shown_artifact(opened, node["id"], namespace, None)
            if is_accepted(shown):
                yield shown
            else:
                note(f"left out: artifact {one_line(node['name'])} has the same octets, but was never accepted")
        ended = ended or "end" in line
    if not ended:
        raise Corrupt("the lineage broke off: what was printed is not the whole of it; ask again")


def is_accepted(shown: "Shown") -> bool:
    """Whether an entry says that this output, with this digest, was accepted."""
    from triplane.audit.entry import parse

    subject = {"name": shown.artifact.get("output"), "digest": shown.evidence.digest}
    entries = map(parse, shown.evidence.entries.values())
    return any(entry["type"] == "task.accepted" and subject in entry["data"]["subjects"] for entry in entries)


def _lines(shown: "Shown", *, wanted: bool) -> Iterator[str]:
    """The lines that speak for one artifact."""
    import base64

    evidence = shown.evidence
    for octets in evidence.envelopes.values():
        if b"\n" in octets:
            raise Corrupt("a stored envelope is not one line, as the operator writes them: do not use it")
        yield octets.decode()
    yield _line(artifact=dict(shown.artifact), digest=evidence.digest, entries=sorted(evidence.entries), wanted=wanted)
    for seq, octets in sorted(evidence.entries.items()):
        yield _line(seq=seq, octets=base64.b64encode(octets).decode())
    yield _line(trust=evidence.trust.wire())


def _line(**said: Any) -> str:
    return json.dumps({_OURS: FORMAT, **said}, separators=(",", ":"))


def read_bundle_file(path: Path, keys: "TrustBundle | None" = None) -> Bundle:
    """What ``export`` printed; ``keys`` instead of those that came along. Raises ``InvalidInput`` when it speaks for no
    artifact, or what it says of one is malformed."""
    from triplane.audit.digest import digest_of_bytes
    from triplane.audit.keys import read_bundle
    from triplane.cli.bundle import entry_octets
    from triplane.cli.trust import read_file

    made = Bundle(own_keys=keys is None)
    envelopes: dict[str, bytes] = {}
    entries: dict[int, bytes] = {}
    artifacts: list[Mapping[str, Any]] = []
    trust = keys
    for octets in read_file(path, _MOST).splitlines():
        line = _parsed(octets)
        if line is not None and line.get(_OURS) == FORMAT:
            if "artifact" in line:
                artifacts.append(line)
            elif "trust" in line:
                trust = trust or read_bundle(line["trust"])
            else:
                seq, entry = entry_octets(line)
                if entries.setdefault(seq, entry) != entry:
                    raise InvalidInput(f"{path} holds two entries {seq}")
        elif line is not None and {"payload", "payloadType", "signatures"} <= line.keys():
            envelopes[digest_of_bytes(octets)] = octets
        else:
            made.passed_over += 1
    if not artifacts:
        raise InvalidInput(f"{path} speaks for no artifact: it is no bundle of format {FORMAT}")
    if trust is None:
        raise InvalidInput(f"{path} brings no keys: name those you trust with --keys")
    for artifact in sorted(artifacts, key=lambda line: line.get("wanted") is not True):
        shown = _shown(path, artifact, entries, envelopes, trust)
        if shown.artifact["uid"] in {other.artifact["uid"] for other in made.shown}:
            raise InvalidInput(f"{path} speaks twice for artifact {shown.artifact['uid']}: who counts them is misled")
        made.shown.append(shown)
    return made


def _parsed(octets: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(octets)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _shown(
    path: Path,
    line: Mapping[str, Any],
    entries: Mapping[int, bytes],
    envelopes: Mapping[str, bytes],
    trust: "TrustBundle",
) -> "Shown":
    from triplane.audit.evidence import Evidence
    from triplane.cli.bundle import Shown, named

    artifact, digest, listed = line["artifact"], line.get("digest"), line.get("entries")
    uid = artifact.get("uid") if isinstance(artifact, dict) else None
    if not isinstance(uid, str) or not isinstance(digest, str) or not isinstance(listed, list):
        raise InvalidInput(f"{path} holds a line that does not say which artifact it is about")
    own = {seq: entries[seq] for seq in listed if isinstance(seq, int) and seq in entries}
    return Shown(artifact, Evidence(uid, digest, own, envelopes, trust, named=named(artifact)))


def verify_bundle_file(path: Path, keys: "TrustBundle | None", content: Path | None, output: Format) -> None:
    """Verify every artifact it speaks for (docs/reference/attestations.md); exits 1 when one does not hold.
    ``content`` is that of the first."""
    from triplane.audit.verification import holds, verify
    from triplane.cli.bundle import with_content

    bundle = read_bundle_file(path, keys)
    if bundle.own_keys:
        note("warning: the keys came with the file: this shows that it fits together, not who signed it")
        note("  name keys you got elsewhere with --keys")
    documents = []
    for number, shown in enumerate(bundle.shown):
        evidence = shown.evidence if content is None or number else with_content(shown.evidence, content)
        steps = verify(evidence)
        documents.append(
            {
                "ok": holds(steps),
                "artifact": dict(shown.artifact),
                "digest": evidence.digest,
                "origin": evidence.trust.origin,
                "steps": [{"number": s.number, "name": s.name, "ok": s.ok, "found": s.found} for s in steps],
            }
        )
    good = all(document["ok"] for document in documents)
    emit({"ok": good, "artifacts": documents}, output, lambda: _tell(documents))
    if not good:
        raise typer.Exit(1)


def _tell(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        mark = colour("ok", "green") if document["ok"] else colour("FAILED", "red")
        name = f"{one_line(document['artifact'].get('namespace'))}/{one_line(document['artifact'].get('name'))}"
        failed = next((step for step in document["steps"] if step["ok"] is False), None)
        why = f": step {failed['number']} ({failed['name']}): {one_line(failed['found'])}" if failed else ""
        typer.echo(f"{mark:<7} {name} {document['digest']}{why}")
    bad = sum(not document["ok"] for document in documents)
    told = (
        f"{bad} of {len(documents)} are NOT verified" if bad else f"{len(documents)} were produced, reviewed, accepted"
    )
    typer.echo(f"artifacts: {told}")
