"""``triplane tool``: what agents called, told from the log; nothing is forgotten when objects are deleted."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.logs import parse
from triplane.cli.output import Format, FormatOption, columns, emit, note, one_line
from triplane.errors import NotFound

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

app = typer.Typer(help="What agents called through their session hosts.", no_args_is_help=True)

_PAGE = 1000
_HEADER = ("TIME", "SESSION", "CALL", "TOOL", "STATUS", "LEAVE", "RULE", "COST", "MS")


@app.command("calls")
def calls(
    thing: Annotated[str, typer.Argument(metavar="OBJECT", help="task/NAME or session/NAME.")],
    content: Annotated[bool, typer.Option("--content", help="With arguments and results, as they were kept.")] = False,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List every call of a tool, made or refused, in the order in which they were recorded.

    STATUS says what came of it, LEAVE whether a person had to agree, RULE what refused it."""
    kind, name = parse(thing)
    place = namespace or access(kubeconfig, context).namespace
    with gateway(kubeconfig, context, place) as opened:
        found = list(_calls(opened, place, kind, name))
        found.sort(key=lambda item: item["seq"])
        if content:
            for item in found:
                item["arguments"] = (_document(opened, item["input"]) or {}).get("arguments")
                item["result"] = _document(opened, item["output"])
    emit(found, output, lambda: _show(found, content=content))


def _calls(opened: "Gateway", namespace: str, kind: str, name: str) -> Iterator[dict[str, Any]]:
    if kind == "AgentSession":
        yield from _of_session(opened, namespace, name=name)
        return
    for session in opened.get("/v1/sessions", namespace=namespace, task=name, limit=1000)["sessions"]:
        yield from _of_session(opened, namespace, uid=session["uid"])


def _of_session(opened: "Gateway", namespace: str, **which: str) -> Iterator[dict[str, Any]]:
    after = -1
    while True:
        page = opened.entries(
            namespace=namespace,
            kind="AgentSession",
            type=["tool.invoked"],
            after=after,
            limit=_PAGE,
            **which,
        )
        for item in page:
            entry = item["entry"]
            subject = entry["subject"]
            yield {
                "seq": item["seq"],
                "time": entry["time"],
                "session": {"name": subject["name"], "uid": subject["uid"]},
                **entry["data"],
            }
        if len(page) < _PAGE:
            return
        after = page[-1]["seq"]


def _document(opened: "Gateway", digest: str) -> Any:
    import json

    try:
        return json.loads(b"".join(opened.fetch(digest)))
    except NotFound:  # erased
        return None


def _show(found: list[dict[str, Any]], *, content: bool) -> None:
    if not found:
        note("no tool was called")
        return
    if not content:
        columns(_HEADER, [_cells(item) for item in found])
        return
    import json

    for item in found:
        typer.echo("   ".join(one_line(cell) for cell in _cells(item)))
        for label in ("arguments", "result"):
            typer.echo(f"    {label}: {one_line(json.dumps(item[label], ensure_ascii=False))}")


def _cells(item: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        item["time"][:19],
        item["session"]["name"],
        item["invocation"],
        item["tool"],
        item["status"],
        item["approval"],
        item.get("rule"),
        item["costMinorUnits"],
        item["milliseconds"],
    )
