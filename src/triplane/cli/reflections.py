"""``triplane reflections``: what the runs said of themselves, also after everything was deleted."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, FormatOption, emit, note, one_line, short

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway


def reflections(
    agent: Annotated[str | None, typer.Option("--agent", help="Name or UID of the Agent.")] = None,
    graph: Annotated[str | None, typer.Option("--graph", help="Name or UID of the Graph it worked in.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Name or UID of the Task.")] = None,
    text: Annotated[str, typer.Option("--text", help="Words that must all stand in it, whatever their case.")] = "",
    min_confidence: Annotated[
        int | None, typer.Option("--min-confidence", help="Only those as sure as this.", min=0, max=100)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=10_000)] = 20,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Search what runs said went well, went badly, and was learnt; newest first.

    Every run is assessed: by its agent, or by the host where that could not. Told from the log and its blobs: nothing
    is forgotten when objects are deleted."""
    place = namespace or access(kubeconfig, context).namespace
    query = {"agent": agent, "graph": graph, "task": task, "text": text or None, "minConfidence": min_confidence}
    with gateway(kubeconfig, context, place) as opened:
        found = list(_pages(opened, limit, {"namespace": place, **query}))
    emit(found, output, lambda: _show(found))


def _pages(opened: "Gateway", limit: int, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    before: int | None = None
    while limit > 0:
        answer = opened.get("/v1/reflections", **query, before=before, limit=min(limit, 1000))
        yield from answer["reflections"]
        limit -= len(answer["reflections"])
        before = answer["next"]
        if before is None:
            return


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        note("no reflection matches")
    for item in found:
        sure = "" if item["confidence"] is None else f"  confidence {item['confidence']}"
        by = "" if item["source"] != "host" else "  (by the host)"
        where = f"{item['session']['name']} run {item['run']}  {item['outcome']}: {item['reason']}{sure}{by}"
        what = f"{item['role'].lower()} {item['agent']['name']}, task {item['task']['name'] or item['task']['uid']}"
        typer.echo(f"{item['time']}  {one_line(where)}")
        typer.echo(f"  {one_line(what)}  {short(item['digest'])}")
        if item["erased"]:
            typer.echo("  (its text was erased)")
        for mark, name in (("+", "wentWell"), ("-", "wentBadly"), ("*", "lessons")):
            for line in item[name]:
                typer.echo(f"  {mark} {one_line(line)}")
