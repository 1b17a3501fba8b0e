"""``triplane lineage``: where an artifact comes from, also after everything was deleted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, FormatOption, emit, one_line, short
from triplane.errors import NotFound

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

Document = Mapping[str, Any]
Branch = tuple[str, Sequence["Branch"]]


def lineage(
    thing: Annotated[str, typer.Argument(metavar="ARTIFACT|DIGEST", help="Name, UID or sha256:… digest.")],
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show digest → task → session → run → inputs → review → as-run record."""
    with gateway(kubeconfig, context, namespace) as opened:
        place = namespace or access(kubeconfig, context).namespace
        documents = find(opened, thing, place)
    emit(documents, output, lambda: show(documents))


def find(opened: "Gateway", thing: str, namespace: str) -> list[dict[str, Any]]:
    """The lineage of every artifact that is meant; ``NotFound`` says what was looked for."""
    name = thing.removeprefix("artifact/")
    subjects = [name]
    if not name.startswith("sha256:"):
        kept = opened.get("/v1/resources", kind="Artifact", namespace=namespace, name=name)["resources"]
        subjects = [item["uid"] for item in kept[:1]] or [name]
    try:
        found = opened.get(f"/v1/lineage/{subjects[0]}")["lineage"]
    except NotFound as error:
        raise NotFound(
            f"no Artifact {name} in namespace {namespace}; `triplane status` shows them, a digest works everywhere"
        ) from error
    return [dict(item) for item in found]


def show(documents: Sequence[Document]) -> None:
    """Trees for people."""
    for document in documents:
        _draw(branches(document), "", "")


def branches(document: Document) -> Branch:
    """The lineage as a labelled tree."""
    artifact = document["artifact"]
    label = f"{document['digest']}\n{_thing(artifact)} (output {artifact['output']}, {artifact['size']} octets)"
    chain = [(_thing(document[kind]), ()) for kind in ("graph", "node", "task") if document.get(kind)]
    return label, (
        ("work", chain),
        ("made by", _session(document)),
        ("from inputs", [_input(item) for item in document.get("inputs") or ()] or [("none", ())]),
        ("reviewed by", [_review(item) for item in document.get("reviews") or ()] or [("nobody yet", ())]),
        ("as-run record", [(_material(item), ()) for item in document.get("asRun") or ()] or [("none", ())]),
    )


def _session(document: Document) -> list[Branch]:
    session, run = document.get("session"), document.get("run") or {}
    if not session:
        return [("session unknown", ())]
    agent = session.get("agent") or {}
    by = f" by Agent {agent.get('name')}, principal {agent.get('principal')}" if agent else ""
    facts = [f"{key} {run[key]}" for key in ("outcome", "runner", "startedAt", "endedAt") if run.get(key)]
    if run.get("isolated") is not None:
        facts.append("isolated" if run["isolated"] else "NOT isolated")
    below: list[Branch] = [
        (f"run {run.get('run')}: {', '.join(facts)}", [(f"finding: {f}", ()) for f in run.get("findings") or ()])
    ]
    if run.get("reflection"):
        below.append((f"reflection {run['reflection']}", ()))
    return [(_thing(session) + by, below)]


def _input(item: Document) -> Branch:
    origins = [
        (f"from {_thing(origin)}" + (f" of {_thing(origin['task'])}" if origin.get("task") else ""), ())
        for origin in item.get("producedBy") or ()
    ]
    return f"{item['name']} {item['digest']}", origins


def _review(item: Document) -> Branch:
    reviewer = item.get("reviewer") or {}
    who = f"Agent {reviewer.get('name')}, principal {reviewer.get('principal')}" if reviewer else "a person"
    if item.get("person"):
        who = f"a person, principal {item.get('principal')}"
    bound = "" if item.get("bound") else " (of another digest: does not count)"
    return f"{_thing(item)}: {item['verdict']} by {who}{bound}", [(finding, ()) for finding in item["findings"]]


def _material(item: Document) -> str:
    generation = f" generation {item['generation']}" if item.get("generation") else ""
    digest = f" {short(item['digest'])}" if item.get("digest") else ""
    return f"{item.get('role')} {item.get('name')}{generation}{digest} ({item.get('basis')}, {item.get('known')})"


def _thing(item: Document) -> str:
    place = f"{item['namespace']}/" if item.get("namespace") else ""
    return f"{item.get('kind')} {place}{item.get('name')}" + (" (deleted)" if item.get("gone") else "")


def _draw(branch: Branch, first: str, rest: str) -> None:
    label, below = branch
    head, *more = label.split("\n")
    typer.echo(first + one_line(head))
    for line in more:
        typer.echo(rest + one_line(line))
    for index, child in enumerate(below):
        last = index == len(below) - 1
        _draw(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
