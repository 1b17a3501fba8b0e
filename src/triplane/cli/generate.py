"""Writes what is generated from the models: ``crds/*.yaml`` and the reference pages of the kinds.

``python -m triplane.cli.generate`` writes into the repository it is run in; ``--check`` writes nothing,
prints a diff and exits 1 when a file is not what the models say. The folders ``crds`` and
``docs/reference/kinds`` hold nothing else: a file there that no kind asks for is removed (or reported).
"""

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from triplane.api import crd, reference
from triplane.cli import reference as commands
from triplane.settings import Settings

HEADER = "# Generated from src/triplane/api by `make generate`; do not edit.\n"
_OWNED_FOLDERS = ("crds", "docs/reference/kinds")


def expected() -> Mapping[str, str]:
    """Path relative to the repository to the text it must have."""
    definitions = {f"crds/{each['metadata']['name']}.yaml": _yaml(each) for each in crd.render_all()}
    pages = {f"docs/reference/{path}": text for path, text in reference.pages().items()}
    return (
        definitions
        | pages
        | {
            "docs/reference/cli.md": commands.render(),
            "docs/reference/settings.md": settings_page(),
        }
    )


def settings_page() -> str:
    """The Markdown page of every environment variable, from the one settings class."""
    lines = [
        "<!-- Generated from src/triplane/settings.py by `make generate`; do not edit. -->",
        "# Settings",
        "",
        "Environment variables of every Triplane process. An unknown `TRIPLANE_…` variable is refused, so that a",
        "typing error is not a default. `triplane up` passes each process only what it needs.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default is None else f"`{field.default}`"
        lines.append(f"| `TRIPLANE_{name.upper()}` | {default} | {' '.join((field.description or '').split())} |")
    return "\n".join(lines) + "\n"


def drift(root: Path) -> Mapping[str, tuple[str | None, str | None]]:
    """Path to ``(text found, text expected)`` for every file that differs; None means absent."""
    wanted = expected()
    found: dict[str, str | None] = {path: _read(root / path) for path in wanted}
    for folder in _OWNED_FOLDERS:
        for stray in sorted((root / folder).glob("*")):
            found.setdefault(stray.relative_to(root).as_posix(), _read(stray))
    return {path: (text, wanted.get(path)) for path, text in sorted(found.items()) if text != wanted.get(path)}


def write(root: Path) -> Sequence[str]:
    """Bring the files under ``root`` up to date; the paths that changed."""
    changed = drift(root)
    for path, (_, text) in changed.items():
        target = root / path
        if text is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    return list(changed)


def main(argv: Sequence[str] | None = None) -> int:
    """0: up to date or written. 1: ``--check`` found drift."""
    parser = argparse.ArgumentParser(prog="python -m triplane.cli.generate", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the repository (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff on drift")
    arguments = parser.parse_args(argv)
    if not arguments.check:
        for path in write(arguments.root):
            print(path)
        return 0
    changed = drift(arguments.root)
    for path, (text, wanted) in changed.items():
        sys.stdout.writelines(_diff(path, text or "", wanted or ""))
    if changed:
        print(f"{len(changed)} generated files are out of date: run `make generate`", file=sys.stderr)
    return 1 if changed else 0


def _diff(path: str, found: str, wanted: str) -> list[str]:
    return list(
        difflib.unified_diff(
            found.splitlines(keepends=True),
            wanted.splitlines(keepends=True),
            f"{path} (in the repository)",
            f"{path} (from the models)",
        )
    )


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


class _Indented(yaml.SafeDumper):
    """Lists indented under their key, no aliases: what people and diffs read best."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_Indented, sort_keys=False, width=110, allow_unicode=True)
    return HEADER + text


if __name__ == "__main__":
    sys.exit(main())
