"""``make bench``: every figure, as a table and as ``build/bench.json``.

``python -m tests.bench [log] [largelog] [cas] [graph] [chain] [policy] [throughput] [scale] [admission]`` runs some of
them.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench import admission, cas, chain, graph, largelog, log, policy, scale, throughput

SUITES: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "log": log.run,
    "largelog": largelog.figures,
    "cas": cas.figures,
    "graph": graph.figures,
    "chain": chain.figures,
    "policy": policy.figures,
    "throughput": throughput.figures,
    "scale": scale.figures,
    "admission": admission.figures,
}
TARGET = Path(__file__).parents[2] / "build" / "bench.json"


def main(chosen: list[str]) -> int:
    """Run the chosen suites (all by default); figures of the others are kept."""
    unknown = set(chosen) - set(SUITES)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    figures: dict[str, dict[str, Any]] = {}
    if TARGET.exists():
        figures = {figure["name"]: figure for figure in json.loads(TARGET.read_text())}
    for name in chosen or SUITES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figures |= {figure["name"]: figure for figure in SUITES[name]()}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(list(figures.values()), indent=2) + "\n")
    print(f"{'figure':36} {'value':>12} {'reference':>12} {'ratio':>7} {'repeat':>6}  unit")
    for figure in figures.values():
        reference = "" if figure["reference"] is None else f"{figure['reference']:g}"
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.3f}"
        value = f"{figure['value']:g}"
        print(f"{figure['name']:36} {value:>12} {reference:>12} {ratio:>7} {figure['repeat']:>6}  {figure['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
