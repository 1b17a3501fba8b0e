"""An artifact's statements in a folder: everything that ``triplane attest verify`` needs, without an installation.

::

    artifact.json          what is shown, and of which installation
    entries.jsonl          the octets of the log entries, one a line
    envelopes/<digest>.json
    proofs/<seq>.tlog-proof  that each of them is in the log (`triplane proof artifact`), for `triplane verify`
    trust.json             the keys, as the installation tells of them
    content                the artifact itself, if it was asked for
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from triplane.audit.digest import parse_digest
from triplane.audit.evidence import Evidence
from triplane.audit.keys import TrustBundle, read_bundle
from triplane.audit.tlogproof import SUFFIX
from triplane.cli.trust import digest_of_file, read_regular
from triplane.errors import InvalidDigest, InvalidInput

FORMAT: Final = "https://triplane.dev/attestation-bundle/v1"
PROOFS: Final = "proofs"
_MOST: Final = 64 * 1024 * 1024
"""Octets of any file that is read whole."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An artifact by name, and what there is to show for it."""

    artifact: Mapping[str, Any]
    """kind, namespace, name, uid, output."""
    evidence: Evidence
    origin: str = ""
    """Of which log a folder says that it is."""


def write_bundle(folder: Path, shown: Shown, proofs: Mapping[int, bytes] = MappingProxyType({})) -> None:
    """``proofs``: by sequence number. Raises ``InvalidInput`` when the folder is there already and not empty."""
    evidence = shown.evidence
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidInput(f"{folder} is not empty; name a new folder")
        (folder / "envelopes").mkdir()
        for digest, octets in evidence.envelopes.items():
            (folder / "envelopes" / f"{parse_digest(digest)}.json").write_bytes(octets)
        for seq, octets in proofs.items():
            (folder / PROOFS).mkdir(exist_ok=True)
            (folder / PROOFS / f"{seq}{SUFFIX}").write_bytes(octets)
        lines = [
            json.dumps({"seq": seq, "octets": base64.b64encode(octets).decode()}) + "\n"
            for seq, octets in sorted(evidence.entries.items())
        ]
        (folder / "entries.jsonl").write_text("".join(lines), encoding="ascii")
        _write_json(folder / "trust.json", evidence.trust.wire())
        # Last: a folder without it is no bundle.
        said = {
            "format": FORMAT,
            "origin": evidence.trust.origin,
            "digest": evidence.digest,
            "artifact": dict(shown.artifact),
        }
        _write_json(folder / "artifact.json", said)
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error}") from error


def read_bundle_folder(folder: Path, keys: TrustBundle | None = None) -> Shown:
    """What ``write_bundle`` wrote; ``keys`` instead of those that came with it. Nothing of it is trusted by that.

    Raises ``InvalidInput`` naming the file that is missing or malformed.
    """
    said = _read_json(folder / "artifact.json")
    if not isinstance(said, dict) or said.get("format") != FORMAT or not isinstance(said.get("artifact"), dict):
        raise InvalidInput(f"{folder / 'artifact.json'} is not of format {FORMAT}")
    uid, digest, origin = said["artifact"].get("uid"), said.get("digest"), said.get("origin")
    if not isinstance(uid, str) or not isinstance(digest, str) or not isinstance(origin, str):
        raise InvalidInput(f"{folder / 'artifact.json'} does not say which artifact it is about")
    parse_digest(digest)
    envelopes = {}
    for path in sorted((folder / "envelopes").glob("*.json")):
        try:
            parse_digest(f"sha256:{path.stem}")
        except InvalidDigest as error:
            raise InvalidInput(f"{path} is not named for a digest") from error
        envelopes[f"sha256:{path.stem}"] = _read(path)
    evidence = Evidence(
        artifact_uid=uid,
        digest=digest,
        entries=_entries(folder / "entries.jsonl"),
        envelopes=envelopes,
        trust=keys or read_keys(folder / "trust.json", links=False),
        named=named(said["artifact"]),
    )
    content = folder / "content"
    whole = evidence if not content.exists() else with_content(evidence, content, links=False)
    return Shown(said["artifact"], whole, origin)


def is_bundle(folder: Path) -> bool:
    """Whether it says that it is one."""
    return (folder / "artifact.json").is_file()


def read_proofs(folder: Path) -> dict[int, bytes]:
    """The proofs beside a bundle's entries, by sequence number; none when there are none. Nothing is checked."""
    found = {}
    for path in sorted((folder / PROOFS).glob(f"*{SUFFIX}")):
        number = path.name.removesuffix(SUFFIX)
        if not (number.isascii() and number.isdigit()):
            raise InvalidInput(f"{path} is not named for an entry")
        found[int(number)] = _read(path)
    return found


def named(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """What people read of an artifact and will take it for."""
    return {key: artifact.get(key) for key in ("namespace", "name", "output")}


def with_content(evidence: Evidence, path: Path, *, links: bool = True) -> Evidence:
    """The same, with this file as the content at hand."""
    return replace(evidence, content=digest_of_file(path, links=links))


def read_keys(path: Path, *, links: bool = True) -> TrustBundle:
    """A trust bundle in a file. Raises ``InvalidInput``."""
    try:
        return read_bundle(_read_json(path, links=links))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def entry_octets(item: Mapping[str, Any]) -> tuple[int, bytes]:
    """Place and octets of an entry, as the gateway and a bundle write it. Raises ``InvalidInput``."""
    seq, text = item.get("seq"), item.get("octets")
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(text, str):
        raise InvalidInput("an entry has no seq, or no octets")
    try:
        return seq, base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"the octets of entry {seq} are no base64") from error


def _entries(path: Path) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for line in _read(path).splitlines():
        try:
            item = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{path} holds a line that is no JSON") from error
        if not isinstance(item, dict):
            raise InvalidInput(f"{path} holds a line that is no entry")
        seq, octets = entry_octets(item)
        if seq in found:
            raise InvalidInput(f"{path} holds two entries {seq}")
        found[seq] = octets
    return found


def _read_json(path: Path, *, links: bool = False) -> Any:
    try:
        return json.loads(_read(path, links=links))
    except ValueError as error:
        raise InvalidInput(f"{path} is no JSON: {error}") from error


def _read(path: Path, *, links: bool = False) -> bytes:
    try:
        return read_regular(path, _MOST, links=links)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error}; is {path.parent} a bundle?") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
