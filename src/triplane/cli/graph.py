"""``triplane graph``: what the graph store keeps, found by labels; and the graph made anew from the log."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import (
    AsOfOption,
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    access,
    gateway,
    settings,
)
from triplane.cli.output import Format, FormatOption, columns, emit, note, one_line
from triplane.cli.trust import ArchiveOption, KeysOption, installation_trust, tiles_in
from triplane.errors import Archived

if TYPE_CHECKING:
    from triplane.ports import EventLog

app = typer.Typer(help="Query the resource graph, which outlives its objects, and rebuild it.", no_args_is_help=True)

_PAGE = 500
_SHOWN = 100
"""Differences listed for people; JSON has them all."""
_TOLD_SECONDS = 5.0


@app.command("query")
def query(
    kind: Annotated[str, typer.Option("--kind", "-k", help="Kind, plural or short name, such as task or tas.")],
    selector: Annotated[
        str, typer.Option("--selector", "-l", help="Label selector as kubectl takes it: a=b,c!=d,e in (f,g),!h.")
    ] = "",
    every: Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")] = False,
    as_of: AsOfOption = None,
    live: Annotated[bool, typer.Option("--live", help="Only what was not deleted.")] = False,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List kept resources by label, deleted ones too. Labels are those of when each generation was first seen."""
    from triplane.cli.why import kind_of

    place = None if every else namespace or access(kubeconfig, context).namespace
    found: list[dict[str, Any]] = []
    with gateway(kubeconfig, context, place) as opened:
        after: str | None = None
        while True:
            answer = opened.get(
                "/v1/resources",
                kind=kind_of(kind),
                namespace=place,
                selector=selector or None,
                limit=_PAGE,
                after=after,
                asOf=as_of,
            )
            found += [item for item in answer["resources"] if not (live and item["gone"])]
            after = answer.get("next")
            if after is None:
                break
    emit(found, output, lambda: _show(found))


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        note("nothing kept matches")
        return
    columns(
        ("NAMESPACE", "NAME", "UID", "GENERATION", "STATE", "LABELS"),
        [
            (
                item["namespace"],
                item["name"],
                item["uid"],
                item["generation"],
                "deleted" if item["gone"] else "live",
                ",".join(f"{key}={value}" for key, value in sorted(item["labels"].items())),
            )
            for item in found
        ],
    )


@app.command("rebuild")
def rebuild(
    check: Annotated[bool, typer.Option("--check", help="Only compare, and exit 1 on a difference.")] = False,
    archive: ArchiveOption = None,
    keys: KeysOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make the resource graph anew from the log and the content store, straight from the database.

    With --check (read-only, as the verifier) it is compared with the live one. Without, it takes the live one's place
    at once, as the operator's account, which may go on working meanwhile. Entries that were archived are read in DIR,
    which is verified first, with the installation's own key or the one that is given."""
    import asyncio
    import time

    began = time.monotonic()
    document = asyncio.run(_rebuild(check, archive, keys))
    document["seconds"] = round(time.monotonic() - began, 2)
    emit(document, output, lambda: _tell(document))
    if document["differences"] and check:
        raise typer.Exit(1)


async def _rebuild(check: bool, archive: Path | None, keys: list[str] | None) -> dict[str, Any]:
    from triplane.controllers.rebuild import Rebuilder, differences
    from triplane.wiring import open_rebuild

    backends = await open_rebuild(settings(), write=not check)
    try:
        log = backends.log if archive is None else await _whole(backends.log, archive, keys)
        rebuilder = Rebuilder(log, backends.graph, backends.load)
        if check:
            rebuilt, found = await differences(rebuilder, backends.graph)
            counts = rebuilt.upto, rebuilt.entries, len(rebuilt.records), len(rebuilt.edges)
            unreadable = rebuilt.unreadable
        else:
            made, found = await rebuilder.put_in_place(backends.graph, _progress()), []
            counts = made.upto, made.entries, made.records, made.edges
            unreadable = made.unreadable
    except Archived as gone:
        raise Archived(f"{gone}. Give their folder with --archive", upto=gone.upto) from gone
    finally:
        await backends.close()
    return {
        "checked": check,
        **dict(zip(("upto", "entries", "resources", "edges"), counts, strict=True)),
        "unreadable": [
            {"uid": uid, "generation": generation, "digest": digest}
            for (uid, generation), digest in sorted(unreadable.items())
        ],
        "differences": [
            {"what": item.what, "field": item.field, "rebuilt": item.rebuilt, "live": item.live, "message": str(item)}
            for item in found
        ],
    }


async def _whole(log: "EventLog", archive: Path, keys: list[str] | None) -> "EventLog":
    from triplane.controllers.wholelog import whole_log

    return await whole_log(log, tiles_in(archive), installation_trust(keys, log.origin))


def _progress() -> Callable[[int, int], None]:
    """Says every few seconds how far it is."""
    import time

    last = time.monotonic()

    def told(done: int, size: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TOLD_SECONDS:
            last = time.monotonic()
            note(f"{done} of {size} entries read")

    return told


def _tell(document: Mapping[str, Any]) -> None:
    found = document["differences"]
    for item in found[:_SHOWN]:
        typer.echo(one_line(item["message"]))
    if len(found) > _SHOWN:
        typer.echo(f"… and {len(found) - _SHOWN} more (-o json lists them all)")
    if not document["checked"]:
        for item in document["unreadable"]:
            typer.echo(f"kept as it was: {item['uid']} generation {item['generation']}: {item['digest']} is not stored")
    typer.echo(sentence(document))


def sentence(document: Mapping[str, Any]) -> str:
    """What came of it, in one line."""
    size = (
        f"{document['resources']} resource generations and {document['edges']} edges "
        f"from {document['entries']} entries up to {document['upto']} ({document['seconds']} s)"
    )
    if not document["checked"]:
        return f"rebuilt: {size}"
    if document["differences"]:
        count = len(document["differences"])
        return f"{count} differences; `triplane graph rebuild` puts the log's graph in place: {size}"
    return f"the live graph is what the log says: {size}"
