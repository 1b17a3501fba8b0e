"""``triplane sessions``: who worked on what, when, and what it cost, also after everything was deleted."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, FormatOption, columns, emit, note
from triplane.errors import NotFound


def sessions(
    agent: Annotated[str | None, typer.Option("--agent", help="Name or UID of the Agent.")] = None,
    graph: Annotated[str | None, typer.Option("--graph", help="Name or UID of the Graph it worked in.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Name or UID of the Task.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Only the one last at work.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1000)] = 100,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List sessions, the one last at work first.

    `triplane sessions --agent X --graph Y --last` answers: which session did agent X use the last time it touched
    graph Y, and what did it cost? Told from the log: nothing is forgotten when objects are deleted."""
    place = namespace or access(kubeconfig, context).namespace
    with gateway(kubeconfig, context, place) as opened:
        found = opened.get(
            "/v1/sessions", namespace=place, agent=agent, graph=graph, task=task, limit=1 if last else limit
        )["sessions"]
    if last and not found:
        raise NotFound(f"no session{_asked(agent, graph, task)} in namespace {place}")
    shown: Any = found[0] if last else found
    emit(shown, output, lambda: _tell(found[0]) if last else _show(found))


def _asked(agent: str | None, graph: str | None, task: str | None) -> str:
    given = (("agent", agent), ("graph", graph), ("task", task))
    return "".join(f" of {kind} {name}" for kind, name in given if name)


def _show(found: list[Mapping[str, Any]]) -> None:
    if not found:
        note("no session matches")
        return
    columns(
        ("SESSION", "AGENT", "ROLE", "GRAPH", "TASK", "RUNS", "OUTCOME", "TOKENS", "COST", "LAST", "UID"),
        [
            (
                item["name"],
                item["agent"]["name"],
                item["role"],
                item["graph"]["name"] or item["graph"]["uid"],
                item["task"]["name"] or item["task"]["uid"],
                item["runs"],
                outcome(item),
                item["tokens"],
                cost(item),
                item["lastAt"] or item["offeredAt"],
                item["uid"],
            )
            for item in found
        ],
    )


def _tell(item: Mapping[str, Any]) -> None:
    rows = (
        ("session", f"{item['namespace']}/{item['name']}"),
        ("uid", item["uid"]),
        ("agent", f"{item['agent']['name']} ({item['role'].lower()})"),
        ("graph", _reference(item["graph"])),
        ("task", _reference(item["task"])),
        ("runs", item["runs"]),
        ("outcome", outcome(item)),
        ("tokens", f"{item['tokens']} ({item['inputTokens']} in, {item['outputTokens']} out)"),
        ("cost", cost(item)),
        ("offered", item["offeredAt"]),
        ("last at work", item["lastAt"]),
    )
    columns(("WHAT", "VALUE"), rows)


def _reference(item: Mapping[str, Any]) -> str:
    return f"{item['name'] or item['uid']}{' (deleted)' if item['gone'] else ''}"


def outcome(item: Mapping[str, Any]) -> str:
    """How its last run ended, or that one is at work."""
    return "running" if item["running"] else str(item["outcome"] or "not started")


def cost(item: Mapping[str, Any]) -> str:
    """Minor units of the currency as a decimal: 1234 is 12.34."""
    return f"{item['costMinorUnits'] // 100}.{item['costMinorUnits'] % 100:02}"
