"""``triplane as-run``: which agent, model, tools, instructions and Policies took part in a run, from the log."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, FormatOption, emit, note, one_line, short
from triplane.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

_AXES = ("tools", "capabilities", "harnesses", "models", "egress", "secrets", "paths")


def as_run(
    thing: Annotated[
        str | None, typer.Argument(metavar="[TASK|SESSION]", help="Name or UID of a Task or an AgentSession.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Runs at work since this day or time.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Runs at work before this day or time.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Name or UID of the Agent.")] = None,
    graph: Annotated[str | None, typer.Option("--graph", help="Name or UID of the Graph.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many runs.", min=1, max=10_000)] = 100,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what took part in runs: agent, harness, program, model, tools, guidelines, capabilities, policies, inputs,
    the authority they had, and how it ended; newest first.

    "Which model and tools ran on Monday?" is `triplane as-run --since 2026-11-16 --until 2026-11-17`. Told from the
    log and its blobs, also after everything was deleted; each record is held against the digests its permit carries."""
    if thing is None and not any((since, until, agent, graph)):
        raise InvalidInput("name a Task or a session, or narrow it by --since, --until, --agent or --graph")
    place = namespace or access(kubeconfig, context).namespace
    query = {"namespace": place, "since": since, "until": until, "agent": agent, "graph": graph}
    with gateway(kubeconfig, context, place) as opened:
        found = _of(opened, thing, limit, query) if thing is not None else list(_pages(opened, limit, query))
    emit(found, output, lambda: _show(found))


def _of(opened: "Gateway", thing: str, limit: int, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the Task of that name, else of the session."""
    kind, _, name = thing.rpartition("/")
    wanted = ("task", "session") if not kind else ("session",) if "session" in kind.lower() else ("task",)
    for role in wanted:
        try:
            return list(_pages(opened, limit, {**query, role: name}))
        except NotFound:
            continue
    raise NotFound(f"no Task or AgentSession {name} is known in namespace {query['namespace']}, nor ever was")


def _pages(opened: "Gateway", limit: int, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    before: int | None = None
    while limit > 0:
        answer = opened.get("/v1/asrun", **query, before=before, limit=min(limit, 1000))
        yield from answer["runs"]
        limit -= len(answer["runs"])
        before = answer["next"]
        if before is None:
            return


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        note("no run matches")
    for place, item in enumerate(found):
        if place:
            typer.echo()
        for line in lines(item):
            typer.echo(line)


def lines(item: Mapping[str, Any]) -> Iterator[str]:
    """One record, for people."""
    agent, task = item["agent"]["name"], item["task"]["name"] or item["task"]["uid"]
    yield one_line(f"{item['session']['name']} run {item['run']}  {item['role'].lower()} {agent}, task {task}")
    why = f": {item['reason']}" if item["reason"] else ""
    until = f" to {item['endedAt']}" if item["endedAt"] else ""
    yield one_line(f"  {item['outcome']}{why}  {item['startedAt'] or item['claimedAt']}{until}  on {item['runner']}")
    for material in item["materials"]:
        yield one_line(f"  {material['role']:<12} {_material(material)}")
    if item["authority"] is not None:
        yield one_line(f"  authority    {_granted(item['authority'])}")
    permit = item["permit"]
    yield one_line(f"  permit       {permit['counter']}, log entry {permit['seq']}")
    for problem in item["problems"]:
        yield one_line(f"  PROBLEM      {problem}")


def _material(item: Mapping[str, Any]) -> str:
    generation = f" generation {item['generation']}" if item.get("generation") is not None else ""
    digest = f" {short(item['digest'])}" if item.get("digest") else ""
    basis = "" if item["basis"] == "content" else f" ({item['basis']})"
    return f"{item['name']}{generation}{digest}{basis}"


def _granted(grant: Mapping[str, Any]) -> str:
    parts = [f"{axis} {', '.join(grant.get(axis) or ()) or 'nothing'}" for axis in _AXES]
    parts += [f"{name} {value}" for name, value in (grant.get("budget") or {}).items()]
    if grant.get("expiresAt"):
        parts.append(f"until {grant['expiresAt']}")
    return "; ".join(parts)
