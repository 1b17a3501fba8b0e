"""``triplane log verify``: every entry hashed and compared again, straight from the database.

Exit codes: 0 verified, 1 broken (the first bad entry, why, and what to do), or nothing was verified.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import settings
from triplane.cli.output import Format, FormatOption, emit, note, one_line
from triplane.cli.trust import NO_KEY, ArchiveOption, KeysOption, read_checkpoint, tiles_in, trust_of
from triplane.errors import InvalidInput

if TYPE_CHECKING:
    from triplane.adapters.filesystem.verifystate import VerifyState
    from triplane.audit.checkpoint import CheckpointTrust
    from triplane.audit.model import Verification
    from triplane.audit.verifying import Progress, TreeState
    from triplane.controllers.verify import Wanted
    from triplane.controllers.wholelog import Archive
    from triplane.ports import EventLog
    from triplane.settings import Settings

_TELL_SECONDS = 1.0
_LARGE = 50_000
"""From so many entries on, worker processes are worth their start."""


class ProgressForm(StrEnum):
    """How progress is shown, on standard error."""

    AUTO = "auto"
    """A line on a terminal, nothing elsewhere."""
    JSON = "json"
    """One object a line."""
    NONE = "none"


def verify(
    first: Annotated[int, typer.Option("--first", help="First sequence number.", min=0)] = 0,
    last: Annotated[int | None, typer.Option("--last", help="Last sequence number.", min=0)] = None,
    key: KeysOption = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Begin behind this signed checkpoint: only what came later is read."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", help="A signed checkpoint you kept, which the log must continue. May be repeated."),
    ] = None,
    archive: ArchiveOption = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="Keep in this file how far it came, and go on from there.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Worker processes; default: one a core.", min=0, show_default=False)
    ] = None,
    progress: Annotated[ProgressForm, typer.Option("--progress", help="How to show progress.")] = ProgressForm.AUTO,
    output: FormatOption = Format.TABLE,
) -> None:
    """Re-hash every stored entry, straight from the database. Exit 1 names the first bad entry and why.

    The tree's root is compared with the latest published checkpoint and with those given: only that finds a log that
    was rewritten with all its hashes. Whose signature counts, --key says; without it, this installation's own keys.
    Of archived entries leaf hashes are verified. With --archive, which is verified first, all that is kept of them is
    held against it, their ids too.
    """
    from triplane.controllers.verify import Wanted

    if (checkpoint or earlier) and not key:
        raise InvalidInput("a checkpoint says nothing without the key that signed it: give the log's key with --key")
    trust = trust_of(key, None, None) if key else None
    wanted = Wanted(
        first=first,
        last=last,
        trust=trust,
        behind=read_checkpoint(checkpoint, trust) if checkpoint else None,
        earlier=tuple(read_checkpoint(path, trust) for path in earlier or ()),
    )
    shown = _Shown(progress)
    began = time.monotonic()
    found = asyncio.run(_verify(settings(), wanted, _Places(state, archive), jobs, shown))
    shown.end()
    document = wire(found)
    emit(document, output, lambda: typer.echo(sentence(document, time.monotonic() - began)))
    if found.unanchored and found.broken is None:
        more = "verify from entry 0"
        if not first and state is None and checkpoint is None:  # it began where the archive ends
            more = "an --earlier one, that you keep elsewhere: what is before is archived"
        note(
            f"UNANCHORED: nothing signed vouches for what is before entry {found.first}; the entries fit together, but "
            f"a log rewritten from its beginning would, too. Give --key and a --checkpoint, or {more}"
        )
    elif found.ok and not found.compared:
        note(
            "the root was compared with no signed checkpoint: a log rewritten with all its hashes would verify as "
            "well; give the log's key with --key"
        )
    if not found.ok:
        raise typer.Exit(1)


def wire(found: "Verification") -> dict[str, Any]:
    """A verification as JSON."""
    broken = found.broken
    return {
        "ok": found.ok,
        "origin": found.origin,
        "first": found.first,
        "last": found.last,
        "count": found.count,
        "root": found.root,
        "checkpoints": list(found.compared),
        "unanchored": found.unanchored,
        "broken": None
        if broken is None
        else {"seq": broken.seq, "reason": broken.reason, "message": broken.message, "remedy": broken.remedy},
    }


def sentence(document: Mapping[str, Any], seconds: float) -> str:
    """What verification found, for people."""
    broken = document["broken"]
    if broken is not None:
        said = f"chain BROKEN at entry {broken['seq']}: {broken['reason']}: {one_line(broken['message'])}"
        return f"{said}\nwhat to do: {one_line(broken['remedy'])}" if broken.get("remedy") else said
    if not document["ok"]:
        return "nothing verified: the log holds no entry in that range, so nothing is proven"
    root = document["root"] or f"not computed (began at entry {document['first']})"
    sizes = document.get("checkpoints") or ()
    signed = f", as signed in the checkpoint of {sizes[-1]} entries" if sizes else ""
    begun = f" from entry {document['first']}" if document["first"] and document["root"] else ""
    return f"chain verified: {document['count']} entries{begun}, root {root}{signed} ({seconds:.2f} s)"


@dataclass(frozen=True, slots=True)
class _Places:
    state: Path | None
    archive: Path | None


async def _verify(
    current: "Settings", wanted: "Wanted", places: _Places, jobs: int | None, shown: "_Shown"
) -> "Verification":
    from triplane.adapters.filesystem.verifystate import VerifyState
    from triplane.controllers import verify as controller
    from triplane.wiring import open_verifier, own_trust

    backends = await open_verifier(current)
    try:
        size, _ = await backends.log.head()
        kept = None if places.state is None else VerifyState(places.state, current.secrets, backends.log.origin)
        begun = kept.read() if kept is not None and wanted.behind is None and places.archive is None else None
        processes = jobs if jobs is not None else _cores() if size - (begun.size if begun else 0) >= _LARGE else 0
        trust = wanted.trust or own_trust(current, backends.log.origin)
        archive = None if places.archive is None else await _archive(backends.log, places.archive, trust)
        asked = replace(wanted, state=begun, processes=processes, trust=trust, archive=archive)
        return await controller.verify(backends.log, backends.checkpoints, asked, _teller(shown, kept))
    finally:
        await backends.close()


async def _archive(log: "EventLog", folder: Path, trust: "CheckpointTrust | None") -> "Archive":
    from triplane.controllers.wholelog import open_archive

    if trust is None:
        raise InvalidInput(NO_KEY)
    opened = await open_archive(log, tiles_in(folder), trust)
    note(f"the archive verifies; what is kept of its first {opened.size} entries is held against it")
    return opened


def _teller(shown: "_Shown", kept: "VerifyState | None") -> Callable[["Progress"], None]:
    """Shows progress and keeps the state: now and then, and at the end of what was known when it began."""
    last = 0.0
    state: TreeState | None = None

    def tell(progress: "Progress") -> None:
        nonlocal last, state
        state = progress.state or state  # a log rarely ends where a state can stand
        ended = progress.checked >= progress.total
        if not ended and time.monotonic() - last < _TELL_SECONDS:
            return
        last = time.monotonic()
        shown.show(progress)
        if kept is not None and state is not None:
            kept.write(state)

    return tell


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Shown:
    """Progress on standard error."""

    def __init__(self, form: ProgressForm) -> None:
        self._json = form is ProgressForm.JSON
        self._line = form is ProgressForm.AUTO and sys.stderr.isatty()
        self._began = time.monotonic()
        self._open = False

    def show(self, progress: "Progress") -> None:
        rate = progress.checked / max(time.monotonic() - self._began, 1e-3)
        left = max(progress.total - progress.checked, 0) / rate if rate else 0.0
        if self._json:
            line = {
                "checked": progress.checked,
                "total": progress.total,
                "perSecond": round(rate),
                "eta": round(left, 1),
            }
            note(json.dumps(line))
        elif self._line:
            self._open = True
            text = f"{progress.checked} of {progress.total} entries, {rate:,.0f}/s, {left:.0f} s left"
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
