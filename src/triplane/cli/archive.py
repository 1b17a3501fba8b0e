"""``triplane log archive``: keep the oldest entries in a folder, and take them out of the database."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.cli.connect import settings
from triplane.cli.output import Format, FormatOption, emit, note
from triplane.cli.trust import KeysOption, installation_trust
from triplane.errors import InvalidInput

if TYPE_CHECKING:
    from triplane.controllers.archiving import Archived, Progress


def archive(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="New or empty, or the archive so far.", file_okay=False)
    ],
    before: Annotated[
        int | None, typer.Option("--before", help="Entries below this sequence number.", min=0, show_default=False)
    ] = None,
    older_than: Annotated[
        int | None, typer.Option("--older-than", help="Entries older than so many days.", min=1, show_default=False)
    ] = None,
    keys: KeysOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Move the oldest entries from the database to DIR, by whole tiles of 256, never beyond the latest checkpoint.

    The log is exported to DIR (C2SP tlog-tiles), every file is read back and checked, then the rows go. Receipts, ids
    and hashes stay: appends stay idempotent, verification goes on, and so do proofs, for which DIR holds the entries.
    Run it as the installation's user, and keep DIR: it is the only copy."""
    if (before is None) == (older_than is None):
        raise InvalidInput("say which entries: either --before SEQ or --older-than DAYS")
    since = None if older_than is None else _since(older_than, datetime.now(UTC))
    done = asyncio.run(_archive(folder.absolute(), before, since, keys))
    document = {"first": done.first, "upto": done.upto, "size": done.size, "removed": done.removed}
    emit(document, output, lambda: typer.echo(_sentence(folder, done)))


def _since(days: int, now: datetime) -> datetime:
    """Raises ``InvalidInput`` when no calendar goes so far back."""
    try:
        return now - timedelta(days=days)
    except OverflowError as error:
        raise InvalidInput(f"--older-than {days} days is before the year 1: give fewer days") from error


async def _archive(folder: Path, before: int | None, since: datetime | None, keys: list[str] | None) -> "Archived":
    from triplane.adapters.filesystem.exportfolder import ExportFolder
    from triplane.controllers.archiving import archive_log, first_since
    from triplane.controllers.exporting import StoredLog
    from triplane.wiring import open_archive

    async with open_archive(settings()) as backends:
        log = backends.log
        trust = installation_trust(keys, log.origin)
        if since is not None:
            before = await first_since(log, since)
        with ExportFolder(folder) as target:
            return await archive_log(
                StoredLog(log, backends.checkpoints),
                target,
                backends.archivist,
                trust,
                before=before or 0,
                place=str(folder),
                now=datetime.now(UTC),
                progress=_progress(),
            )


def _progress() -> "Progress":
    said: dict[str, int] = {}

    def progress(what: str, count: int, size: int) -> None:
        if what not in said or count - said[what] >= 65_536:
            said[what] = count
            note(f"{what}: {count} of {size}")

    return progress


def _sentence(folder: Path, done: "Archived") -> str:
    new = f"entries {done.first} to {done.upto - 1} archived" if done.upto > done.first else "nothing new to archive"
    return f"{folder}: {new}; {done.removed} removed from the database, which now begins at entry {done.upto}"
