"""A careless auditor: its first report carries a planted defect; it looks again only where a reviewer points.

The defect is chosen by the Harness (``DEFECT``): total, missing-row, wrong-licence or stale-chart. The
mending knows nothing of defects: each finding is ``file pointer: what is wrong``, and exactly the places pointed at are
read again from the raw inputs. Without findings it delivers the same defective draft again.
"""

import copy
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import audit
import render
from main import say

Document = dict[str, Any]

FINDING = re.compile(r"(?P<file>\S+) (?P<pointer>/.*?): ")
RENDER = {
    "audit.json": lambda document: json.dumps(document, indent=1) + "\n",
    "report.md": render.report,
    "chart.svg": render.chart,
}


def main() -> int:
    """Deliver the draft, mended where the findings of the last review point."""
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    folder = Path(next(entry["path"] for entry in order["inputs"] if entry["name"] == "environment"))
    drafts = draft(folder, os.environ.get("DEFECT", "total"))
    say("progress", message="draft ready", percent=50)
    mended = mend(drafts, order["findings"], folder) if order["findings"] else []
    for place in mended:
        say("message", role="assistant", text=f"looked again: {place}")
    for output in order["outputs"]:
        path = Path(output["path"])
        path.write_text(RENDER[path.name](drafts[path.name]), encoding="utf-8")
    say("usage", inputTokens=0, outputTokens=0, costMinorUnits=0)
    say(
        "reflection",
        wentWell=[f"{len(mended)} places read again because of the reviewer's findings"] if mended else [],
        wentBadly=["the draft needed findings to be mended"] if mended else ["delivered without looking a second time"],
        lessons=["count again before delivering"],
        confidence=80 if mended else 40,
    )
    return 0


def draft(folder: Path, defect: str) -> dict[str, Document]:
    """One document per file, with the defect in it."""
    right = audit.audit(folder)
    drafts = {file: copy.deepcopy(right) for file in RENDER}
    if defect == "total":
        for document in drafts.values():
            document["figures"]["distributions"] -= 1
    elif defect == "missing-row":
        for document in drafts.values():
            document["distributions"].popitem()
    elif defect == "wrong-licence":
        for document in drafts.values():
            row = next(iter(document["distributions"].values()))
            row["licence"] = "GPL-3.0-only" if row["licence"] != "GPL-3.0-only" else "MIT"
    elif defect == "stale-chart":
        drafts["chart.svg"]["figures"]["families"]["permissive"] += 1
    else:
        raise SystemExit(f"unknown DEFECT {defect}: use total, missing-row, wrong-licence or stale-chart")
    return drafts


def mend(drafts: dict[str, Document], findings: list[str], folder: Path) -> list[str]:
    """Read the places the findings point at again, and nothing else; returns those places."""
    mended = []
    again = audit.audit(folder)
    for finding in findings:
        place = FINDING.match(finding)
        if place and place["file"] in drafts:
            put(drafts[place["file"]], again, place["pointer"])
            mended.append(f"{place['file']} {place['pointer']}")
    return mended


def put(document: Document, source: Document, pointer: str) -> None:
    """Make the place the pointer (RFC 6901) names in ``document`` what it is in ``source``, or remove it."""
    *parents, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    for token in parents:
        if token not in source or not isinstance(document.get(token), dict):
            return  # a place of the rendered file only: it follows from the others
        document, source = document[token], source[token]
    if last in source:
        document[last] = copy.deepcopy(source[last])
    else:
        document.pop(last, None)


if __name__ == "__main__":
    sys.exit(main())
