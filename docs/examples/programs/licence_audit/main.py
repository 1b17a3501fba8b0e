"""The auditor: reads the raw metadata, writes report.md, audit.json and chart.svg, and says how it went."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import audit
import render


def say(kind: str, /, **fields: Any) -> None:
    """One line of the exec protocol."""
    print(json.dumps({"type": kind, **fields}), flush=True)


def main() -> int:
    """Do the work order; 0 when every output is written."""
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    folder = Path(next(entry["path"] for entry in order["inputs"] if entry["name"] == "environment"))
    paths = {output["name"]: Path(output["path"]) for output in order["outputs"]}
    say("progress", message="reading the metadata of every distribution", percent=10)
    document = audit.audit(folder)
    count = document["figures"]["distributions"]
    say("message", role="assistant", text=f"{count} distributions read; writing report, figures and chart")
    paths["audit"].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    paths["report"].write_text(render.report(document), encoding="utf-8")
    paths["chart"].write_text(render.chart(document), encoding="utf-8")
    say("progress", message="outputs written", percent=100)
    say("usage", inputTokens=0, outputTokens=0, costMinorUnits=0)
    badly = []
    if document["figures"]["families"]["other"]:
        badly.append("some licences are outside the rules' list and were only filed under other")
    if document["figures"]["collected"] != count:
        badly.append("the collector counted other distributions than the folder holds")
    say(
        "reflection",
        wentWell=[f"all {count} distributions of the input were read and appear in every output"],
        wentBadly=badly,
        lessons=["licence statements are the distributors' claims; the texts themselves were counted, not read"],
        confidence=90,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
