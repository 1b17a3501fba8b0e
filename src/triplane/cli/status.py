"""``triplane status``: the tree graph → node → task → session → artifact, each with how it stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster
from triplane.cli.output import Format, FormatOption, colour, emit, note, one_line, short
from triplane.errors import NotFound, TriplaneError

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader

Object = Mapping[str, Any]

_SHOWN = ("Graph", "Node", "Task", "AgentSession", "Artifact", "Review")
_COLOURS = {"Succeeded": "green", "Running": "cyan", "Reviewing": "cyan", "Failed": "red", "Cancelled": "red"}


@dataclass(frozen=True)
class Row:
    """One object of the tree."""

    kind: str
    name: str
    state: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    message: str | None = None
    children: Sequence["Row"] = ()

    def wire(self) -> dict[str, Any]:
        """As JSON: absent facts left out."""
        found = {"kind": self.kind, "name": self.name, "state": self.state, **self.facts}
        found |= {"reason": self.reason, "message": self.message} if self.reason else {}
        return found | ({"children": [child.wire() for child in self.children]} if self.children else {})


def status(
    graph: Annotated[str | None, typer.Argument(help="One Graph; default: all of the namespace.")] = None,
    namespace: NamespaceOption = None,
    every: Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")] = False,
    depth: Annotated[
        int | None, typer.Option("--depth", min=1, help="Levels of the tree to print: 1 is Graphs, 3 is Tasks.")
    ] = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what is going on, as a tree. Exit 1 if the named Graph is unknown, or its work failed or is stuck."""
    with cluster(kubeconfig, context) as reader:
        place = namespace or reader.access.namespace
        objects = read(reader, None if every else place)
        trouble = broken_log(reader)
    if trouble is not None:
        note(colour(f"THE LOG IS BROKEN {trouble}", "red"))
    rows = tree(objects, graph)
    if graph is not None and not rows:
        raise NotFound(f"no Graph {graph!r} in namespace {place}; `kubectl get graphs -A` lists them")
    emit([row.wire() for row in rows], output, lambda: show(rows, "all namespaces" if every else place, depth))
    if graph is not None and any(is_unwell(row) for row in rows):
        raise typer.Exit(1)


def read(reader: "Reader", namespace: str | None) -> dict[str, list[dict[str, Any]]]:
    """Every object the tree is made of, by kind."""
    return {kind: reader.list(kind, namespace) for kind in _SHOWN}


def broken_log(reader: "Reader") -> str | None:
    """What the operator found wrong with the log (docs/how-to/verify-the-log.md); None where nothing is known, or the
    caller may not ask."""
    try:
        held = reader.raw("/api/v1/namespaces/triplane-system/configmaps/triplane-log").get("data") or {}
    except TriplaneError:  # whatever is in the way, it is not what the caller asked for
        return None
    if held.get("verified") != "False":
        return None
    said = f"at entry {held.get('sequence')}: {held.get('reason')}: {held.get('message')}"
    return f"{one_line(said)} (since {one_line(held.get('since'))})\nwhat to do: {one_line(held.get('remedy'))}"


def tree(objects: Mapping[str, Sequence[Object]], graph: str | None = None) -> list[Row]:
    """One row per Graph with everything below it; what belongs to no Graph that exists comes last."""
    rows = []
    for item in _sorted(objects["Graph"]):
        name = item["metadata"]["name"]
        if graph in (None, name):
            rows.append(_graph(item, objects))
    known = {(_namespace(item), item["metadata"]["name"]) for item in objects["Graph"]}
    if graph is None:
        for kind in ("Node", "Task"):
            for item in _sorted(objects[kind]):
                orphan = (_namespace(item), item["spec"]["graphRef"]["name"]) not in known
                if orphan and not (kind == "Task" and item["spec"].get("nodeRef")):
                    rows.append(_node(item, objects) if kind == "Node" else _task(item, objects))
    return rows


def is_unwell(row: Row) -> bool:
    """Whether something in it failed or waits for somebody to act."""
    trouble = row.state in ("Failed", "Cancelled") or bool(row.facts.get("stalled"))
    own = trouble and row.kind in ("Graph", "Node", "Task")
    return own or any(is_unwell(child) for child in row.children)


def show(rows: Sequence[Row], place: str, depth: int | None = None) -> None:
    """The tree for people, ``depth`` levels of it."""
    if not rows:
        typer.echo(f"No Graphs in {place}. Apply one, or see `triplane demo`.")
    for row in rows:
        _show(row, "", "", depth)


def _show(row: Row, first: str, rest: str, depth: int | None) -> None:
    facts = " ".join(f"{name}={one_line(value)}" for name, value in row.facts.items() if value not in (None, ""))
    state = colour(row.state, _COLOURS.get(row.state, "yellow"))
    reason = f"  {row.reason}: {one_line(row.message)}" if row.reason and row.state != "Succeeded" else ""
    typer.echo(f"{first}{row.kind} {one_line(row.name)}  {state}  {facts}{reason}".rstrip())
    if depth is not None and depth <= 1:
        return
    for index, child in enumerate(row.children):
        last = index == len(row.children) - 1
        below = None if depth is None else depth - 1
        _show(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), below)


def _graph(item: Object, objects: Mapping[str, Sequence[Object]]) -> Row:
    name, namespace = item["metadata"]["name"], _namespace(item)
    nodes = [n for n in objects["Node"] if _of_graph(n, namespace, name)]
    bare = [t for t in objects["Task"] if _of_graph(t, namespace, name) and not t["spec"].get("nodeRef")]
    counts = _status(item).get("tasks") or {}
    facts = {"namespace": namespace, "title": item["spec"].get("title")}
    facts |= {"tasks": f"{counts.get('succeeded', 0)}/{counts.get('total', 0)}"}
    children = [_node(n, objects) for n in _sorted(nodes)] + [_task(t, objects) for t in _sorted(bare)]
    return _row(item, "Ready", facts, children)


def _node(item: Object, objects: Mapping[str, Sequence[Object]]) -> Row:
    name, namespace = item["metadata"]["name"], _namespace(item)
    tasks = [
        task
        for task in objects["Task"]
        if (task["spec"].get("nodeRef") or {}).get("name") == name and _namespace(task) == namespace
    ]
    found = _status(item)
    facts = {
        "steps": found.get("progress"),
        "active": ",".join(found.get("active") or ()),
        "waiting": found.get("waitingReason"),
        "tokens": found.get("tokens"),
    }
    return _row(item, "Succeeded", facts, [_task(task, objects) for task in _sorted(tasks)])


def _task(item: Object, objects: Mapping[str, Sequence[Object]]) -> Row:
    uid, found = item["metadata"]["uid"], _status(item)
    skipped = found.get("state") == "skipped"
    facts = {
        "skipped": _condition(item, "Succeeded").get("reason") if skipped else None,
        "waiting": found.get("waitingReason"),
        "agent": found.get("agent"),
        "reviewer": found.get("reviewer"),
        "reviewed": None if skipped else _condition(item, "Reviewed").get("status"),
        "round": found.get("round") or None,
        "retries": found.get("retries") or None,
        "tokens": found.get("tokens"),
    }
    children = [
        *(_session(s, objects) for s in _sorted(objects["AgentSession"]) if _of_task(s, uid)),
        *(_review(r) for r in _sorted(objects["Review"]) if _of_task(r, uid)),
    ]
    return _row(item, "Succeeded", facts, children)


def _session(item: Object, objects: Mapping[str, Sequence[Object]]) -> Row:
    spec, found = item["spec"], _status(item)
    facts = {
        "role": spec["role"],
        "agent": spec["agentRef"]["name"],
        "run": found.get("run"),
        "isolated": _condition(item, "Isolated").get("status"),
    }
    artifacts = [a for a in objects["Artifact"] if a["spec"]["sessionRef"]["uid"] == item["metadata"]["uid"]]
    return _row(item, "Succeeded", facts, [_artifact(a) for a in _sorted(artifacts)])


def _artifact(item: Object) -> Row:
    spec, reviewed = item["spec"], _condition(item, "Reviewed")
    state = {"True": "Accepted", "False": "Rejected"}.get(reviewed.get("status", ""), "Unreviewed")
    facts = {"output": spec["name"], "digest": short(spec["digest"]), "size": spec["size"], "round": spec["round"]}
    return Row("Artifact", item["metadata"]["name"], state, facts, reviewed.get("reason"), reviewed.get("message"))


def _review(item: Object) -> Row:
    spec = item["spec"]
    by = (spec.get("agentRef") or {}).get("name") or "a person"
    facts = {"by": by, "round": spec["round"], "findings": len(spec.get("findings") or ())}
    return Row("Review", item["metadata"]["name"], spec["verdict"], facts)


def _row(item: Object, summary: str, facts: Mapping[str, Any], children: Sequence[Row]) -> Row:
    condition = _condition(item, summary)
    extra = {"stalled": True} if _condition(item, "Stalled").get("status") == "True" else {}
    if item["metadata"].get("deletionTimestamp"):
        extra["deleting"] = True
    return Row(
        item["kind"],
        item["metadata"]["name"],
        str(_status(item).get("phase") or "Pending"),
        {**facts, **extra},
        condition.get("reason"),
        condition.get("message"),
        children,
    )


def _condition(item: Object, name: str) -> Mapping[str, Any]:
    return next((c for c in _status(item).get("conditions") or () if c["type"] == name), {})


def _status(item: Object) -> Mapping[str, Any]:
    return item.get("status") or {}


def _namespace(item: Object) -> str:
    return str(item["metadata"].get("namespace", ""))


def _of_graph(item: Object, namespace: str, graph: str) -> bool:
    return _namespace(item) == namespace and item["spec"]["graphRef"]["name"] == graph


def _of_task(item: Object, uid: str) -> bool:
    return bool(item["spec"]["taskRef"]["uid"] == uid)


def _sorted(items: Iterable[Object]) -> list[Object]:
    """Oldest first, then by name."""
    return sorted(items, key=lambda item: (item["metadata"].get("creationTimestamp") or "", item["metadata"]["name"]))
