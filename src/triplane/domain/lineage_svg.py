"""A provenance document as an SVG picture, without any program to draw it: layers from left to right in the order of
time, and within a layer near to what it is connected with. The same document gives the same picture.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from triplane.domain.lineage_formats import node_label, printable
from triplane.domain.provenance import SOURCE_FIRST, edge_text

WIDTH, HEIGHT = 260, 46
GAP_X, GAP_Y, MARGIN = 90, 18, 24
_LETTERS: Final = 36
"""Monospace letters that fit into a box at 12 px."""
_SWEEPS: Final = 4
_FILL: Final = {
    "Graph": "#e8eef7", "Node": "#e8eef7", "Workflow": "#e8eef7", "Task": "#dbe9f6", "AgentSession": "#fdf1d3",
    "Artifact": "#dff3e0", "Blob": "#f1f7ef", "Review": "#f6dfe6", "Agent": "#eee6f6", "Harness": "#eee6f6",
    "Capability": "#eee6f6",
}  # fmt: skip
_STYLE: Final = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1b1f24}.small{font-size:10px;fill:#57606a}"
    "rect{stroke:#8c959f;rx:4}.start{stroke:#0550ae;stroke-width:2.5}.gone{stroke-dasharray:4 3}"
    "path{fill:none;stroke:#8c959f}.reviews{stroke:#bf3989}.derivedFrom{stroke:#1a7f37}"
)


def svg(document: Mapping[str, Any]) -> str:
    """The picture; every box and arrow has a title that says the whole of it."""
    nodes = {node["id"]: node for node in document["nodes"]}
    flows = [(edge, *_flow(edge)) for edge in document["edges"]]
    pairs = sorted({(before, after) for _, before, after in flows if before != after})
    layers = _ordered(_layers(list(nodes), pairs), pairs)
    places = {
        id_: (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        for column, layer in enumerate(layers)
        for row, id_ in enumerate(layer)
    }
    width = 2 * MARGIN + len(layers) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(len(layer) for layer in layers) * (HEIGHT + GAP_Y) - GAP_Y
    starts = set(document["start"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" aria-label="lineage">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" style="fill:#8c959f;stroke:none"/></marker></defs>',
        *(_arrow(edge, places[before], places[after]) for edge, before, after in flows),
        *(_box(nodes[id_], place, id_ in starts) for id_, place in places.items()),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _flow(edge: Mapping[str, Any]) -> tuple[str, str]:
    ends = (edge["source"], edge["target"])
    return ends if edge["kind"] in SOURCE_FIRST else (ends[1], ends[0])


def _layers(ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Each node one layer behind the last of those before it. In a cycle the edge that would close it is left out."""
    following: dict[str, list[str]] = {id_: [] for id_ in ids}
    for before, after in pairs:
        following[before].append(after)
    order = _topological(ids, following)
    position = {id_: number for number, id_ in enumerate(order)}
    level = dict.fromkeys(ids, 0)
    for id_ in order:
        for after in following[id_]:
            if position[after] > position[id_]:
                level[after] = max(level[after], level[id_] + 1)
    layers: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for id_ in ids:
        layers[level[id_]].append(id_)
    return layers


def _topological(ids: Sequence[str], following: Mapping[str, Sequence[str]]) -> list[str]:
    """Depth first, reversed; without recursion, for chains are long."""
    done: list[str] = []
    seen: set[str] = set()
    for root in ids:
        stack = [(root, iter(following[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            id_, rest = stack[-1]
            after = next((item for item in rest if item not in seen), None)
            if after is None:
                done.append(id_)
                stack.pop()
            else:
                seen.add(after)
                stack.append((after, iter(following[after])))
    return done[::-1]


def _ordered(layers: list[list[str]], pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Fewer crossings: sort each layer by the mean place of its neighbours, to and fro (Sugiyama's barycentres)."""
    near: dict[str, list[str]] = {}
    for before, after in pairs:
        near.setdefault(before, []).append(after)
        near.setdefault(after, []).append(before)
    place = {id_: float(row) for layer in layers for row, id_ in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            weight = {
                id_: sum(place[other] for other in near[id_]) / len(near[id_]) if near.get(id_) else place[id_]
                for id_ in layer
            }
            layer.sort(key=lambda id_: (weight[id_], id_))
            place |= {id_: float(row) for row, id_ in enumerate(layer)}
    return layers


def _box(node: Mapping[str, Any], place: tuple[int, int], start: bool) -> str:
    x, y = place
    first, second = node_label(node)
    style = " ".join(name for name, holds in (("start", start), ("gone", node["gone"])) if holds)
    space = f"{node['namespace']}/" if node["namespace"] else ""
    whole = escape(printable(f"{node['kind']} {space}{node['name'] or ''} {node['id']}"))
    return (
        f'<g><title>{whole}</title><rect class="{style}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
        f'fill="{_FILL.get(node["kind"], "#ffffff")}"/>'
        f'<text x="{x + 8}" y="{y + 19}">{escape(_cut(first))}</text>'
        f'<text class="small" x="{x + 8}" y="{y + 36}">{escape(_cut(second, 42))}</text></g>'
    )


def _arrow(edge: Mapping[str, Any], before: tuple[int, int], after: tuple[int, int]) -> str:
    x1, y1 = before[0] + WIDTH, before[1] + HEIGHT // 2
    x2, y2 = after[0], after[1] + HEIGHT // 2
    bend = GAP_X // 2 if x2 > x1 else GAP_X
    text = escape(printable(edge_text(edge["kind"], edge["data"])))
    return (
        f'<path class="{escape(edge["kind"])}" marker-end="url(#tip)" '
        f'd="M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"><title>{text}</title></path>'
    )


def _cut(text: str, letters: int = _LETTERS) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
