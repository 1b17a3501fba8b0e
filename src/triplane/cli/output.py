"""How commands show things: tables for people, JSON and YAML for programs, errors in two lines."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]


def emit(value: Any, form: Format, table: Callable[[], None]) -> None:
    """Show the value as JSON or YAML, or call ``table`` to show it for people."""
    if form is Format.JSON:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif form is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        table()


def columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """An aligned table in the manner of kubectl; cells are escaped, empty ones shown as ``-``."""
    cells = [list(header)] + [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    for row in cells:
        typer.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def one_line(value: object) -> str:
    """Text from outside as one printable line: it can neither move the cursor nor forge a line."""
    if value is None or value == "":
        return "-"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))


def short(digest: str | None) -> str:
    """The first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12] if digest else "-"


def note(text: str) -> None:
    """A remark for people, on standard error so that pipes get only the answer."""
    typer.echo(text, err=True)


def colour(text: str, name: str) -> str:
    """Coloured for a terminal that wants it (no-color.org), else as it is."""
    import os

    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return text if plain else typer.style(text, fg=name)
