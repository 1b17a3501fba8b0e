"""An agent for workflows: its JSON output says which step it was and holds every input, so that a test can see what
was brought to it. ``FAIL_STEPS`` names steps that fail; ``SLOW_STEPS`` takes ``step=seconds``. Standard
library only."""

import json
import os
import sys
import time
from pathlib import Path

order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text())
inputs, outputs = Path(os.environ["TRIPLANE_INPUTS"]), Path(os.environ["TRIPLANE_OUTPUTS"])
step = order["task"]["name"].rpartition("-")[2]


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def content(path: Path) -> object:
    text = path.read_text()
    try:
        return json.loads(text)
    except ValueError:
        return text


for item in os.environ.get("SLOW_STEPS", "").split():
    name, _, seconds = item.partition("=")
    if name == step:
        time.sleep(float(seconds))
if step in os.environ.get("FAIL_STEPS", "").split():
    sys.exit(f"step {step} was told to fail")
given = {item["name"]: content(inputs / item["name"]) for item in order["inputs"]}
for output in order["outputs"]:
    if output["mediaType"] == "application/json":
        result = {"step": step, "objective": order["task"]["objective"], "inputs": given}
        Path(output["path"]).write_text(json.dumps(result))
    else:
        Path(output["path"]).write_text(f"{step}: {order['task']['objective']}")
say(type="usage", inputTokens=10, outputTokens=5, costMinorUnits=1)
say(type="reflection", wentWell=["the order was clear"], wentBadly=[], lessons=[], confidence=90)
