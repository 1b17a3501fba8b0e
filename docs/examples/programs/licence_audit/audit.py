"""Reads a folder of raw ``*.dist-info`` metadata and works out every figure of the audit.

The rules are numbered in docs/examples/01-licence-audit/RULES.md.
"""

import base64
import csv
import hashlib
import io
import json
import re
from collections import Counter
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import licences

LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)
STRONG_HASHES = ("sha256", "sha384", "sha512")

Row = dict[str, Any]


def audit(folder: Path) -> dict[str, Any]:
    """The whole audit as one JSON document: figures, and one row per distribution by normalised name."""
    rows = {}
    for path in sorted(folder.glob("*.dist-info")):
        name, row = examine(path)
        rows[name] = row
    collected = json.loads((folder / "collected.json").read_text(encoding="utf-8"))
    return {
        "version": 1,
        "python": collected["python"],
        "figures": figures(rows, collected),
        "distributions": dict(sorted(rows.items())),
    }


def examine(path: Path) -> tuple[str, Row]:
    """One distribution: (normalised name, row)."""
    metadata = _headers(path / "METADATA")
    wheel = _headers(path / "WHEEL")
    licence, source = licences.stated(metadata)
    name = str(metadata.get("Name", path.name.rsplit("-", 1)[0])).strip()
    row: Row = {
        "name": name,
        "version": str(metadata.get("Version", "")).strip(),
        "licence": licence,
        "family": licences.family(licence, source),
        "source": source,
        **_record(path),
        "licenceTexts": len(_licence_files(path)),
        "installer": (_text(path / "INSTALLER").split() or ["unknown"])[0],
        "wheel": _wheel(wheel),
        "tags": sorted({str(tag).strip() for tag in wheel.get_all("Tag", [])}),
        **_origin(path),
    }
    return re.sub(r"[-_.]+", "-", name).lower(), row


def figures(rows: dict[str, Row], collected: dict[str, Any]) -> dict[str, Any]:
    """Totals over the rows (R10)."""

    def total(key: str) -> int:
        return sum(row[key] for row in rows.values())

    def count(key: str) -> dict[str, int]:
        return dict(sorted(Counter(row[key] for row in rows.values()).items()))

    return {
        "collected": collected["distributions"],
        "distributions": len(rows),
        "notAudited": len(collected["skipped"]),
        **{key: total(key) for key in ("files", "hashed", "unhashed", "weakHashes", "bytes", "verified", "altered")},
        "withoutLicenceText": sum(row["licenceTexts"] == 0 for row in rows.values()),
        "families": {family: sum(r["family"] == family for r in rows.values()) for family in licences.FAMILIES},
        "sources": count("source"),
        "installers": count("installer"),
        "wheels": count("wheel"),
        "origins": count("origin"),
    }


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""


def _headers(path: Path) -> Message:
    return Parser().parsestr(_text(path), headersonly=True)


def _licence_files(path: Path) -> list[Path]:
    kept = path / "licenses"
    named = [file for file in path.iterdir() if file.is_file() and LICENCE_FILE.match(file.name)]
    return named + [file for file in kept.rglob("*") if file.is_file()]


def _record(path: Path) -> Row:
    """Integrity facts: what RECORD promises, and whether the collected files keep it (R7, R8)."""
    numbers = Counter(files=0, hashed=0, unhashed=0, weakHashes=0, bytes=0, verified=0, altered=0)
    for entry in csv.reader(io.StringIO(_text(path / "RECORD"))):
        if len(entry) != 3:
            continue
        file, digest, size = entry
        numbers["files"] += 1
        numbers["bytes"] += int(size) if size.isdigit() else 0
        if not digest:
            if not file.endswith((".pyc", ".dist-info/RECORD")):
                numbers["unhashed"] += 1
            continue
        algorithm, _, value = digest.partition("=")
        numbers["hashed"] += 1
        numbers["weakHashes"] += algorithm not in STRONG_HASHES
        folder, _, inside = file.partition("/")
        copy = path / inside
        if folder == path.name and inside and algorithm == "sha256" and copy.is_file():
            actual = base64.urlsafe_b64encode(hashlib.sha256(copy.read_bytes()).digest()).rstrip(b"=").decode()
            numbers["verified" if actual == value else "altered"] += 1
    return dict(numbers)


def _wheel(wheel: Message) -> str:
    if not wheel.keys():
        return "none"
    return "pure" if str(wheel.get("Root-Is-Purelib", "")).strip().lower() == "true" else "platform"


def _origin(path: Path) -> Row:
    """Where it was installed from (PEP 610): an index unless direct_url.json says otherwise."""
    text = _text(path / "direct_url.json")
    if not text:
        return {"origin": "index", "url": None}
    direct = json.loads(text)
    if direct.get("dir_info", {}).get("editable"):
        return {"origin": "editable", "url": direct["url"]}
    kind = "vcs" if "vcs_info" in direct else "archive" if "archive_info" in direct else "local"
    return {"origin": kind, "url": direct["url"]}
