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
        last: dict[str, str] = {}
        for session in sessions(reader, kind, place, name, follow):
            metadata = session["metadata"]
            if output is Format.TABLE and kind == "Task" and metadata["uid"] not in last:
                role, agent = session["spec"]["role"].lower(), session["spec"]["agentRef"]["name"]
                typer.echo(colour(f"── {metadata['name']} ({role} {agent})", "cyan"))
            path = f"/v1/sessions/{metadata['uid']}/journal"
            ask = {"run": run, "after": last.get(metadata["uid"])}
            # Following a Task, its sessions are polled in turn: a rework wakes a session that seemed over.
            wait = "true" if follow and kind == "AgentSession" else None
            last.setdefault(metadata["uid"], "")
            for record in opened.lines(path, follow=wait, run=ask["run"], after=ask["after"] or None):
                last[metadata["uid"]] = record["id"]
                _print(record, output)


def parse(thing: str) -> tuple[str, str]:
    """``task/NAME`` or ``session/NAME`` as (kind, name)."""
    kind, _, name = thing.partition("/")
    kinds = {"task": "Task", "tasks": "Task", "tt": "Task", "session": "AgentSession", "agentsession": "AgentSession"}
    kinds |= {"agentsessions": "AgentSession", "tas": "AgentSession"}
    if kind not in kinds or not name:
        raise InvalidInput(f"{thing!r} has no logs: write task/NAME or session/NAME")
    return kinds[kind], name


def sessions(reader: "Reader", kind: str, namespace: str, name: str, follow: bool) -> Iterator[Mapping[str, Any]]:
    """The session named, or those of the Task in order of age; following, again and again until it ends."""
    if kind == "AgentSession":
        yield reader.get("AgentSession", namespace, name)
        return
    waited = False
    while True:
        task = reader.get("Task", namespace, name)
        found = [
            session
            for session in reader.list("AgentSession", namespace)
            if session["spec"]["taskRef"]["uid"] == task["metadata"]["uid"]
        ]
        # In the order of the work, which a one-second creation time cannot always tell.
        yield from sorted(
            found,
            key=lambda s: (s["metadata"].get("creationTimestamp", ""), s["spec"]["round"], s["spec"]["role"]),
        )
        phase = (task.get("status") or {}).get("phase", "Pending")
        if not follow or phase in _ENDED:
            if not found and not follow:
                raise NotFound(f"task/{name} has no session yet: `triplane why task/{name}` says why")
            return
        if not found and not waited:
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
