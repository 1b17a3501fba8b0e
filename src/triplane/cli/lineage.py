"""``triplane lineage``: where a thing comes from and what came of it, also after everything was deleted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import AsOfOption, ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, emit, one_line, short
from triplane.errors import Forbidden, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

Document = Mapping[str, Any]
Branch = tuple[str, Sequence["Branch"]]


class LineageFormat(StrEnum):
    """Output formats."""

    TREE = "tree"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    DOT = "dot"
    SVG = "svg"
    IN_TOTO = "in-toto"


_HELD = 2000
_STREAMED = 100_000
"""Things shown when nothing is said: of what is held to be put in order, and of what is not."""


def lineage(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="OBJECT", help="KIND/NAME, the name or UID of an Artifact, or a sha256:… digest of any blob."
        ),
    ],
    up: Annotated[bool, typer.Option("--up", help="Where it came from, through every step.")] = False,
    down: Annotated[bool, typer.Option("--down", help="What came of it.")] = False,
    both: Annotated[bool, typer.Option("--both", help="Both.")] = False,
    depth: Annotated[
        int | None, typer.Option("--depth", help="Edges to follow; default: 64.", min=1, show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Things to show; default: 2,000, of jsonl 100,000.", min=1, show_default=False),
    ] = None,
    as_of: AsOfOption = None,
    namespace: NamespaceOption = None,
    output: Annotated[LineageFormat, typer.Option("--output", "-o", help="Output format.")] = LineageFormat.TREE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show where a thing came from, or what came of it.

    Of an artifact and without a direction: the record of how it was made, digest → task → session → run → inputs →
    review → as-run record. With --up, --down or --both, as of an earlier entry of the log, of another kind, or drawn
    with -o dot or -o svg: the graph around it, step by step, down to the fields that inputs were composed of.

    -o jsonl prints the graph as it comes, nearest first, and holds none of it. -o in-toto prints what was signed about
    an accepted artifact and about everything it was made from, as an in-toto bundle that `triplane attest verify`
    checks without a connection."""
    if up + down + both > 1:
        raise InvalidInput("choose one of --up, --down and --both")
    if output is LineageFormat.IN_TOTO:
        if up or down or both or depth or limit or as_of:
            raise InvalidInput("-o in-toto tells of all that an artifact came from; it takes no other choice")
        from triplane.cli.intoto import export

        with gateway(kubeconfig, context, namespace) as opened:
            export(opened, thing, namespace or access(kubeconfig, context).namespace)
        return
    graph = up or down or both or depth or limit or as_of or output in _OF_THE_GRAPH
    with gateway(kubeconfig, context, namespace) as opened:
        place = namespace or access(kubeconfig, context).namespace
        if not graph and _is_artifact(thing):
            documents = find(opened, thing, place)
            _emit(documents, output, lambda: show(documents))
            return
        subject = _subject(opened, thing, place, as_of)
        lines = opened.lines(
            f"/v1/provenance/{subject}",
            way="both" if both else "down" if down else "up",
            depth=depth,
            limit=limit or (_STREAMED if output is LineageFormat.JSONL else _HELD),
            namespace=place if subject.startswith("sha256:") else None,
            asOf=as_of,
        )
        if output is LineageFormat.JSONL:
            _stream(lines)
            return
        from triplane.domain.provenance import Gathered

        gathered = Gathered()
        for line in lines:
            gathered.add(line)
    _show_graph(gathered.document(), output)


_OF_THE_GRAPH = (LineageFormat.DOT, LineageFormat.SVG, LineageFormat.JSONL)


def _stream(lines: Iterable[Document]) -> None:
    """Each line as it comes."""
    import json

    line: Document = {}
    for line in lines:
        typer.echo(json.dumps(line, ensure_ascii=False))
    if "end" not in line:
        raise Unavailable("the answer broke off: what was printed is not all; ask again, with a lower --limit")


def _is_artifact(thing: str) -> bool:
    return "/" not in thing or thing.partition("/")[0].lower() in ("artifact", "artifacts")


def _emit(value: Any, output: LineageFormat, tree: Callable[[], None]) -> None:
    forms = {LineageFormat.JSON: Format.JSON, LineageFormat.YAML: Format.YAML}
    emit(value, forms.get(output, Format.TABLE), tree)


def _subject(opened: "Gateway", thing: str, namespace: str, as_of: str | None) -> str:
    """The digest, or the UID of the newest incarnation of that name; what is no name is taken for a UID."""
    if thing.startswith("sha256:"):
        return thing
    from triplane.cli.why import parse

    kind, name = parse(thing if "/" in thing else f"artifact/{thing}")
    kept = opened.get("/v1/resources", kind=kind, namespace=namespace, name=name, asOf=as_of)["resources"]
    if kept:
        return str(kept[0]["uid"])
    if "/" not in thing:
        return name
    raise NotFound(f"no {kind} {name} is kept in namespace {namespace}; `triplane graph query -k {kind}` lists them")


def _show_graph(document: Document, output: LineageFormat) -> None:
    from triplane.domain.lineage_formats import dot, tree
    from triplane.domain.lineage_svg import svg

    if output is LineageFormat.DOT:
        typer.echo(dot(document), nl=False)
    elif output is LineageFormat.SVG:
        typer.echo(svg(document), nl=False)
    else:
        _emit(document, output, lambda: typer.echo("\n".join(tree(document))))


def find(opened: "Gateway", thing: str, namespace: str) -> list[dict[str, Any]]:
    """The lineage of every artifact that is meant; ``NotFound`` says what was looked for."""
    name = thing.partition("/")[2] or thing
    subjects = [name]
    if not name.startswith("sha256:"):
        kept = opened.get("/v1/resources", kind="Artifact", namespace=namespace, name=name)["resources"]
        subjects = [item["uid"] for item in kept[:1]] or [name]
    try:
        found = _lineage(opened, subjects[0], namespace)
    except NotFound as error:
        raise NotFound(
            f"no Artifact {name} in namespace {namespace}; `triplane status` shows them, a digest works everywhere"
        ) from error
    return [dict(item) for item in found]


def _lineage(opened: "Gateway", subject: str, namespace: str) -> list[Document]:
    """Of a digest in all namespaces, for who may read them all; for others, in theirs."""
    try:
        return list(opened.get(f"/v1/lineage/{subject}")["lineage"])
    except Forbidden:
        if not subject.startswith("sha256:"):
            raise
    return list(opened.get(f"/v1/lineage/{subject}", namespace=namespace)["lineage"])


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
    from triplane.domain.provenance import part_text

    origins = [
        (f"from {_thing(origin)}" + (f" of {_thing(origin['task'])}" if origin.get("task") else ""), ())
        for origin in item.get("producedBy") or ()
    ]
    parts: list[Branch] = [
        (
            f"{part_text({**part, 'input': item['name']})} ({part['merge']}) {part['digest']}",
            [(f"from {_thing(origin)}", ()) for origin in part.get("producedBy") or ()],
        )
        for part in item.get("composedOf") or ()
    ]
    return f"{item['name']} {item['digest']}", [*origins, *parts]


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
