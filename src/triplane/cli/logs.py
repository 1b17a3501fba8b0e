"""``triplane logs``: the journal of a session, or of every session of a Task, also while it is being written."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster, gateway
from triplane.cli.output import Format, FormatOption, colour, note, one_line
from triplane.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader
    from triplane.cli.gateway import Gateway

Object = Mapping[str, Any]

_POLL_SECONDS = 0.5
_ENDED = ("Succeeded", "Failed", "Cancelled")


def logs(
    thing: Annotated[str, typer.Argument(metavar="OBJECT", help="task/NAME or session/NAME.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the work is over.")] = False,
    run: Annotated[int | None, typer.Option("--run", help="Only this run.", min=1)] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Print the journal: what an agent said, did and observed. With -o json, one record per line."""
    kind, name = parse(thing)
    with cluster(kubeconfig, context) as reader, gateway(kubeconfig, context, namespace) as opened:
        place = namespace or reader.access.namespace
        if kind == "AgentSession":
            uid = reader.get(kind, place, name)["metadata"]["uid"]
            journal = f"/v1/sessions/{uid}/journal"
            for line in opened.lines(journal, run=run, follow="true" if follow else None):
                _print(line, output)
            return
        shown = ""
        for owner, record in _of_task(reader, opened, place, name, run, follow):
            if owner["metadata"]["name"] != shown and output is Format.TABLE:
                shown = owner["metadata"]["name"]
                role, agent = owner["spec"]["role"].lower(), owner["spec"]["agentRef"]["name"]
                typer.echo(colour(f"── {shown} ({role} {agent})", "cyan"))
            _print(record, output)


def parse(thing: str) -> tuple[str, str]:
    """``task/NAME`` or ``session/NAME`` as (kind, name)."""
    kind, _, name = thing.partition("/")
    kinds = {"task": "Task", "tasks": "Task", "tt": "Task", "session": "AgentSession", "agentsession": "AgentSession"}
    kinds |= {"agentsessions": "AgentSession", "tas": "AgentSession"}
    if kind not in kinds or not name:
        raise InvalidInput(f"{thing!r} has no logs: write task/NAME or session/NAME")
    return kinds[kind], name


def _of_task(
    reader: "Reader", opened: "Gateway", namespace: str, name: str, run: int | None, follow: bool
) -> Iterator[tuple[Object, Object]]:
    """(session, record) of all sessions of a Task in the order of their times.

    Following, all sessions are asked in turn: a rework wakes a session that seemed over.
    """
    last: dict[str, str] = {}
    waited = False
    while True:
        task = reader.get("Task", namespace, name)
        over = (task.get("status") or {}).get("phase", "Pending") in _ENDED
        sessions = [
            session
            for session in reader.list("AgentSession", namespace)
            if session["spec"]["taskRef"]["uid"] == task["metadata"]["uid"]
        ]
        if not sessions and not follow:
            raise NotFound(f"task/{name} has no session yet: `triplane why task/{name}` says why")
        fresh: list[tuple[Object, Object]] = []
        for session in sessions:
            uid = session["metadata"]["uid"]
            for record in opened.lines(f"/v1/sessions/{uid}/journal", run=run, after=last.get(uid)):
                last[uid] = record["id"]
                fresh.append((session, record))
        # Stable: records of one session keep their order whatever their clock said.
        yield from sorted(fresh, key=lambda pair: str(pair[1]["occurredAt"]))
        if not follow or over:
            return
        if not sessions and not waited:
            waited = True
            note(f"task/{name} has no session yet; waiting")
        time.sleep(_POLL_SECONDS)


def _print(record: Mapping[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        import json

        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    payload = record["payload"]
    who = str(payload.get("role") or payload.get("stream") or payload.get("kind") or "")
    label = f"{record['type']}/{who}" if who else record["type"]
    typer.echo(f"{str(record['occurredAt'])[11:19]} {record['id']:<8} {label:<20} {one_line(_text(payload))}")


def _text(payload: Mapping[str, Any]) -> str:
    for key in ("text", "message", "summary"):
        if isinstance(payload.get(key), str):
            percent = payload.get("percent")
            return f"{payload[key]} ({percent}%)" if isinstance(percent, int) else str(payload[key])
    import json

    return json.dumps(payload, ensure_ascii=False)
