"""Bob's reviewer of sums: adds the inputs up digit by digit, as on paper."""

import json
import os
import sys
from itertools import zip_longest
from pathlib import Path


def add(one: str, other: str) -> str:
    """The sum of two non-negative decimal numbers."""
    digits, carry = [], 0
    for a, b in zip_longest(reversed(one), reversed(other), fillvalue="0"):
        carry, digit = divmod(int(a) + int(b) + carry, 10)
        digits.append(str(digit))
    return (str(carry) * bool(carry) + "".join(reversed(digits))).lstrip("0") or "0"


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    subjects = order["review"]["subjects"]
    given = [entry for entry in order["inputs"] if not entry["name"].startswith("outputs/")]
    total = "0"
    for entry in given:
        for number in Path(entry["path"]).read_text("utf-8").split():
            total = add(total, number)
    findings = [
        f"{subject['name']}: says {said[:40]!r}, the inputs give {total}"
        for subject in subjects
        if (said := Path(subject["path"]).read_text("utf-8", "replace").strip()) != total
    ]
    verdict = {
        "verdict": "Reject" if findings else "Approve",
        "findings": findings,
        "subjects": [{"name": subject["name"], "digest": subject["digest"]} for subject in subjects],
    }
    Path(order["outputs"][0]["path"]).write_text(json.dumps(verdict) + "\n", encoding="utf-8")
    print(json.dumps({"type": "reflection", "wentWell": ["added up anew"], "wentBadly": [], "confidence": 99}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
