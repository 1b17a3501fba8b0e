"""The census taker: counts the primes of a range by a sieve, or adds up what others have counted.

An input ``range`` is {"from": …, "to": …}; an input ``parts`` is a list of the documents this program writes. A
census is {"from", "to", "primes", "sum", "first", "last", "twins", "gap"}: twins are pairs (p, p + 2) with both in
it, gap is the largest distance between neighbours in it.
"""

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from math import isqrt
from pathlib import Path
from typing import Any

Census = dict[str, Any]


def primes_between(low: int, high: int) -> list[int]:
    """The primes of [low, high], by a segmented sieve of Eratosthenes."""
    low = max(low, 2)
    marked = bytearray(max(high - low + 1, 0))
    for factor in range(2, isqrt(high) + 1):
        start = max(factor * factor, (low + factor - 1) // factor * factor)
        for multiple in range(start, high + 1, factor):
            marked[multiple - low] = 1
    return [low + offset for offset, composite in enumerate(marked) if not composite]


def census(low: int, high: int) -> Census:
    found = primes_between(low, high)
    steps = [after - before for before, after in pairwise(found)]
    return {
        "from": low,
        "to": high,
        "primes": len(found),
        "sum": sum(found),
        "first": found[0] if found else None,
        "last": found[-1] if found else None,
        "twins": steps.count(2),
        "gap": max(steps, default=0),
    }


def together(parts: Sequence[Census]) -> Census:
    """The census of ranges that follow each other: pairs and gaps across the borders count too."""
    ordered = sorted(parts, key=lambda part: part["from"])
    for before, after in pairwise(ordered):
        if after["from"] != before["to"] + 1:
            raise SystemExit(f"the parts do not follow each other: {before['to']} and then {after['from']}")
    peopled = [part for part in ordered if part["primes"]]
    borders = [after["first"] - before["last"] for before, after in pairwise(peopled)]
    return {
        "from": ordered[0]["from"],
        "to": ordered[-1]["to"],
        "primes": sum(part["primes"] for part in ordered),
        "sum": sum(part["sum"] for part in ordered),
        "first": peopled[0]["first"] if peopled else None,
        "last": peopled[-1]["last"] if peopled else None,
        "twins": sum(part["twins"] for part in ordered) + borders.count(2),
        "gap": max([part["gap"] for part in ordered] + borders),
    }


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    inputs = {entry["name"]: json.loads(Path(entry["path"]).read_text("utf-8")) for entry in order["inputs"]}
    wanted = inputs.get("range")
    what = f"counting {wanted['from']} to {wanted['to']}" if wanted else f"adding up {len(inputs['parts'])} parts"
    print(json.dumps({"type": "progress", "message": what, "percent": 10}), flush=True)
    made = census(wanted["from"], wanted["to"]) if wanted else together(inputs["parts"])
    Path(order["outputs"][0]["path"]).write_text(json.dumps(made, sort_keys=True) + "\n", encoding="utf-8")
    well = f"{made['primes']} primes from {made['from']} to {made['to']}"
    print(json.dumps({"type": "reflection", "wentWell": [well], "wentBadly": [], "lessons": [], "confidence": 99}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
