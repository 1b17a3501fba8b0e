"""A provenance document as a tree for people, and as a DOT graph. Deterministic; names from outside are escaped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triplane.domain.provenance import SOURCE_FIRST, edge_text, part_text

Document = Mapping[str, Any]

_SHAPES: Final = {"Blob": "note", "Artifact": "note", "Review": "octagon", "AgentSession": "ellipse"}
_PHRASES: Final = {
    "reviews": ("reviewed by", "reviewed by"),
    "produces": ("produced by", "produced"),
    "derivedFrom": ("derived from", "led to"),
    "consumes": ("consumed", "consumed by"),
    "dependsOn": ("depended on", "depended on by"),
    "uses": ("used", "used by"),
    "owns": ("part of", "consists of"),
}
"""Upwards and downwards."""
_EDGE_ORDER: Final = tuple(_PHRASES)


def printable(text: str) -> str:
    """One printable line: what is invisible or moves the cursor is spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def node_label(node: Mapping[str, Any]) -> tuple[str, str]:
    """Two lines: what it is, and what is worth knowing of it."""
    if node["kind"] == "Blob":
        return printable(node["id"][:19] + "…"), "blob"
    facts = node["facts"]
    told = []
    if node["kind"] == "Artifact":
        told = [f"output {facts['output']}"] if "output" in facts else []
        told += [f"{facts['size']} octets"] if "size" in facts else []
        told += [facts["digest"][7:19]] if "digest" in facts else []
    elif node["kind"] == "AgentSession":
        told = [f"{str(facts.get('role', '')).lower()} {facts.get('agent')}"]
    elif node["kind"] == "Review":
        told = [str(facts.get("verdict"))]
    elif facts.get("step"):
        told = [f"step {facts['step']}"]
    if node["gone"]:
        told.append("deleted")
    return printable(f"{node['kind']} {node['name']}"), printable(", ".join(told))


def tree(document: Document) -> list[str]:
    """Lines of a tree per direction, each node spelled out once; a second time it is only named."""
    nodes = {node["id"]: node for node in document["nodes"]}
    lines: list[str] = []
    for start in document["start"]:
        lines.append(_line(nodes[start]))
        for way, title in (("up", "came from"), ("down", "came of it")):
            if document["way"] in (way, "both"):
                lines.append(f"{title}:")
                lines += _branches(document, nodes, start, up=way == "up")
    if document["truncated"]:
        lines.append(f"(cut off: more than {len(nodes)} things; use --depth or begin nearer)")
    return lines


@dataclass(frozen=True, slots=True)
class _Branch:
    """Everything that connects a node with one beyond it."""

    far: str
    text: str
    notes: tuple[str, ...]


def _branches(document: Document, nodes: Mapping[str, Any], start: str, *, up: bool) -> list[str]:
    below = _below(document, nodes, up=up)
    lines: list[str] = []
    seen = {start}
    # A stack of our own: chains may be longer than Python's.
    stack = [(branch, "", last) for branch, last in below(start)]
    while stack:
        branch, indent, last = stack.pop()
        again = branch.far in seen
        elbow, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
        lines.append(f"{indent}{elbow}{branch.text}: {_line(nodes[branch.far])}{' (above)' if again else ''}")
        further = [] if again else below(branch.far)
        lines += [f"{indent}{rest}{'│' if further else ' '}    {note}" for note in branch.notes]
        seen.add(branch.far)
        stack += [(item, indent + rest, end) for item, end in further]
    return lines or ["└─ nothing"]


def _below(document: Document, nodes: Mapping[str, Any], *, up: bool) -> Callable[[str], list[tuple[_Branch, bool]]]:
    """The branches of a node in the direction, each with whether it is the last; in the order of a stack."""
    edges: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for edge in document["edges"]:
        before, after = _flow(edge)
        # A review came of an artifact, and says whether it was accepted: both ways it stands under it.
        near, far = (after, before) if up and edge["kind"] != "reviews" else (before, after)
        if (nodes[far]["depth"] <= 0) if up else (nodes[far]["depth"] >= 0):
            edges.setdefault(near, {}).setdefault(far, []).append(edge)

    def rank(item: tuple[str, list[Mapping[str, Any]]]) -> tuple[int, str, str, str]:
        first = min(_EDGE_ORDER.index(edge["kind"]) for edge in item[1])
        node = nodes[item[0]]
        return first, node["kind"], node["name"] or "", item[0]

    def below(id_: str) -> list[tuple[_Branch, bool]]:
        found = sorted(edges.get(id_, {}).items(), key=rank)
        branches = [_branch(far, parallel, up=up) for far, parallel in found]
        return [(branch, number == len(branches) - 1) for number, branch in enumerate(branches)][::-1]

    return below


def _branch(far: str, parallel: Sequence[Mapping[str, Any]], *, up: bool) -> _Branch:
    texts = dict.fromkeys(_words(edge, up=up) for edge in sorted(parallel, key=lambda edge: str(edge["kind"])))
    parts = sorted(part_text(edge["data"]) for edge in parallel if _is_part(edge))
    return _Branch(far, printable(", ".join(texts)), tuple(map(printable, parts)))


def _words(edge: Mapping[str, Any], *, up: bool) -> str:
    phrase = _PHRASES[edge["kind"]][0 if up else 1]
    if _is_part(edge):
        return f"{phrase} ({edge['data'].get('merge')})"
    return edge_text(edge["kind"], edge["data"]).replace(edge["kind"], phrase, 1)


def _is_part(edge: Mapping[str, Any]) -> bool:
    return edge["kind"] == "derivedFrom" and bool(edge["data"].get("input"))


def _line(node: Mapping[str, Any]) -> str:
    if node["kind"] == "Blob":
        return printable(node["id"])
    first, second = node_label(node)
    place = f"{node['namespace']}/" if node["namespace"] else ""
    name = first.replace(" ", f" {printable(place)}", 1)
    return f"{name} ({second})" if second else name


def _flow(edge: Mapping[str, Any]) -> tuple[str, str]:
    first = (edge["source"], edge["target"])
    return first if edge["kind"] in SOURCE_FIRST else (first[1], first[0])


def dot(document: Document) -> str:
    """A directed graph in Graphviz' DOT language (graphviz.org/doc/info/lang.html): arrows point from what was there
    before to what came of it."""
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [shape=box, fontname="monospace"];']
    starts = set(document["start"])
    for node in document["nodes"]:
        label = "\n".join(part for part in node_label(node) if part)
        shape = _SHAPES.get(node["kind"], "box")
        style = "bold" if node["id"] in starts else "dashed" if node["gone"] else "solid"
        lines.append(f"  {_quoted(node['id'])} [label={_quoted(label)}, shape={shape}, style={style}];")
    for edge in document["edges"]:
        before, after = _flow(edge)
        text = _quoted(printable(edge_text(edge["kind"], edge["data"])))
        lines.append(f"  {_quoted(before)} -> {_quoted(after)} [label={text}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """A double-quoted string: a quotation mark and a backslash in it stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
