"""A small agent whose behaviour the Harness's environment chooses. Standard library only."""

import json
import os
import sys
import time
from pathlib import Path

order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text())
outputs = Path(os.environ["TRIPLANE_OUTPUTS"])


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


say(type="progress", message="reading the work order", percent=10)
while (gate := os.environ.get("WAIT_FOR_INPUT")) and not (Path(os.environ["TRIPLANE_INPUTS"]) / gate).exists():
    time.sleep(0.05)
time.sleep(float(os.environ.get("SLEEP", "0")))
if os.environ.get("FAIL"):
    sys.exit(f"told to fail: {os.environ['FAIL']}")
if order["role"] == "reviewer":
    subjects = [{"name": item["name"], "digest": item["digest"]} for item in order["review"]["subjects"]]
    bad = [item for item in order["review"]["subjects"] if "mended" not in Path(item["path"]).read_text()]
    strict = os.environ.get("STRICT")
    findings = [f"{item['name']}: it does not say mended" for item in bad] if strict else []
    verdict = {"verdict": "Reject" if findings else "Approve", "findings": findings, "subjects": subjects}
    (outputs / "verdict.json").write_text(json.dumps(verdict))
else:
    text = "mended" if order["findings"] and not os.environ.get("STUBBORN") else "first try"
    for output in order["outputs"]:
        Path(output["path"]).write_text(text + "\n")
say(type="usage", inputTokens=120, outputTokens=30, costMinorUnits=2)
say(type="reflection", wentWell=["the order was clear"], wentBadly=[], lessons=[], confidence=90)
