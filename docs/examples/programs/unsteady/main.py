"""An agent with a bad day: adds up numbers, unless its harness says that something goes wrong first.

``FAIL_RUNS=2`` fails the first two runs, ``SILENT=1`` never says a word, ``SLOW=60`` takes its time (but says so).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def say(kind: str, /, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    while os.environ.get("SILENT"):
        time.sleep(60)
    for second in range(int(os.environ.get("SLOW", "0"))):
        say("progress", message=f"still at it after {second} s")
        time.sleep(1)
    if order["run"] <= int(os.environ.get("FAIL_RUNS", "0")):
        say("reflection", wentWell=[], wentBadly=[f"run {order['run']}: the gauge did not answer"], confidence=10)
        sys.exit("the gauge did not answer")
    numbers = [int(word) for entry in order["inputs"] for word in Path(entry["path"]).read_text("utf-8").split()]
    for output in order["outputs"]:
        Path(output["path"]).write_text(f"{sum(numbers)}\n", encoding="utf-8")
    say("usage", inputTokens=10 * len(numbers), outputTokens=5, costMinorUnits=1)
    say("reflection", wentWell=[f"{len(numbers)} numbers added in run {order['run']}"], wentBadly=[], confidence=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
