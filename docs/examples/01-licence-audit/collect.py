"""Collects the raw installation metadata of this environment: python3 collect.py FOLDER

Copies what installers left in every ``*.dist-info`` folder, unread and unaltered: METADATA, RECORD, WHEEL,
INSTALLER, direct_url.json and the licence texts. Nothing else of the machine goes in, and no time, so the
same environment always gives the same folder.
"""

import importlib.metadata
import json
import platform
import re
import shutil
import sys
from pathlib import Path

FACTS = ("METADATA", "RECORD", "WHEEL", "INSTALLER", "direct_url.json")
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)


def collect(target: Path) -> dict[str, object]:
    """Fill the (absent or empty) folder; returns what ``collected.json`` says."""
    if target.exists() and any(target.iterdir()):
        raise SystemExit(f"{target} is not empty: name a new folder")
    target.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    skipped: list[str] = []
    for distribution in importlib.metadata.distributions():
        source: Path | None = getattr(distribution, "_path", None)
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name in seen:  # the first one on sys.path is the one that is imported
            continue
        seen.add(name)
        if source is None or source.suffix != ".dist-info":
            skipped.append(name)
            continue
        copy(Path(source), target / source.name)
    collected: dict[str, object] = {
        "python": platform.python_version(),
        "distributions": len(seen) - len(skipped),
        "skipped": sorted(skipped),
    }
    (target / "collected.json").write_text(json.dumps(collected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return collected


def copy(source: Path, target: Path) -> None:
    """The facts and licence texts of one distribution, octet for octet."""
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.name in FACTS or LICENCE_FILE.match(file.name)):
            shutil.copyfile(file, target / file.name)
    licences = source / "licenses"
    for file in sorted(licences.rglob("*")) if licences.is_dir() else []:
        if file.is_file():
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python3 collect.py FOLDER")
    found = collect(Path(sys.argv[1]))
    print(f"{found['distributions']} distributions collected in {sys.argv[1]}")
