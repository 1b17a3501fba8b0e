"""What the commands that read the log have in common: which entries, and how each is shown."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from triplane.cli.output import Format, one_line

TypeOption = Annotated[list[str] | None, typer.Option("--type", help="Event type; may be repeated.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="Kind of the subject.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the subject.")]
UidOption = Annotated[str | None, typer.Option("--uid", help="UID of the subject.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Principal id, or `system`.")]


def show(item: Mapping[str, Any], output: Format) -> None:
    """Print one entry: a line of cells, or of JSON."""
    if output is Format.TABLE:
        typer.echo("  ".join(one_line(cell) for cell in cells(item)))
    else:
        import json

        typer.echo(json.dumps(item, ensure_ascii=False))


def cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Number, time, type, subject and actor."""
    entry = item["entry"]
    subject = entry.get("subject") or {}
    name = "/".join(part for part in (subject.get("namespace"), subject.get("name")) if part)
    return str(item["seq"]), entry["time"], entry["type"], f"{subject.get('kind', '')} {name}".strip(), entry["actor"]
