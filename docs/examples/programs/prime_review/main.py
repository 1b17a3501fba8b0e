"""Bob's reviewer of the census: tests every number of the range for itself, by Miller and Rabin, and needs no parts.

With the bases 2, 3, 5 and 7 the test is exact below 3,215,031,751 (Jaeschke 1993).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

BASES = (2, 3, 5, 7)
EXACT_BELOW = 3_215_031_751


def is_prime(number: int) -> bool:
    if number < 2 or number % 2 == 0:
        return number == 2
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in BASES:
        if number == base:
            return True
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def expected(low: int, high: int) -> dict[str, Any]:
    count = total = twins = gap = 0
    first = last = None
    for number in range(low, high + 1):
        if not is_prime(number):
            continue
        count, total = count + 1, total + number
        if last is not None:
            twins += number - last == 2
            gap = max(gap, number - last)
        first = first or number
        last = number
    return {"from": low, "to": high, "primes": count, "sum": total, "first": first, "last": last, "twins": twins,
            "gap": gap}  # fmt: skip


def asked(inputs: dict[str, Any]) -> tuple[int, int]:
    """The range that was to be counted."""
    if "range" in inputs:
        return inputs["range"]["from"], inputs["range"]["to"]
    return min(part["from"] for part in inputs["parts"]), max(part["to"] for part in inputs["parts"])


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    given = [entry for entry in order["inputs"] if not entry["name"].startswith("outputs/")]
    inputs = {entry["name"]: json.loads(Path(entry["path"]).read_text("utf-8")) for entry in given}
    low, high = asked(inputs)
    if high >= EXACT_BELOW:
        sys.exit(f"{high} is beyond what these bases decide")
    print(json.dumps({"type": "progress", "message": f"testing {low} to {high}", "percent": 10}), flush=True)
    subject = order["review"]["subjects"][0]
    said, wanted = json.loads(Path(subject["path"]).read_text("utf-8")), expected(low, high)
    findings = [
        f"census /{name}: says {said.get(name)!r}, is {wanted.get(name)!r}"
        for name in sorted(set(said) | set(wanted))
        if said.get(name) != wanted.get(name)
    ]
    verdict = {
        "verdict": "Reject" if findings else "Approve",
        "findings": findings[:20],
        "subjects": [{"name": subject["name"], "digest": subject["digest"]}],
    }
    Path(order["outputs"][0]["path"]).write_text(json.dumps(verdict) + "\n", encoding="utf-8")
    print(json.dumps({"type": "reflection", "wentWell": ["every number tested"], "wentBadly": [], "confidence": 99}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
