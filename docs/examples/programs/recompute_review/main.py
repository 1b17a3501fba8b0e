"""The reviewer: recomputes every figure from the raw inputs and compares each output, place by place."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import readback
import recompute

MOST_FINDINGS = 20
LONGEST_FINDING = 256
FILE_OF = {"audit": "audit.json", "report": "report.md", "chart": "chart.svg"}


def say(kind: str, /, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def main() -> int:
    """Write the verdict; 0 also when it is a rejection: then the review, not the work, has succeeded."""
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    folder = Path(next(entry["path"] for entry in order["inputs"] if entry["name"] == "environment"))
    say("progress", message="recomputing every figure from the raw inputs", percent=20)
    expected = recompute.expected(folder)
    subjects = order["review"]["subjects"]
    findings = list(review(subjects, expected))
    for number, finding in enumerate(findings):
        say("observation", observationId=f"finding-{number}", kind="discrepancy", text=finding)
    verdict = {
        "verdict": "Reject" if findings else "Approve",
        "findings": shortened(findings),
        "subjects": [{"name": subject["name"], "digest": subject["digest"]} for subject in subjects],
    }
    Path(order["outputs"][0]["path"]).write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
    say(
        "message",
        role="assistant",
        text=f"{verdict['verdict']}: {len(findings)} findings in {len(subjects)} outputs",
    )
    say("usage", inputTokens=0, outputTokens=0, costMinorUnits=0)
    say(
        "reflection",
        wentWell=[f"{len(expected)} places recomputed from the raw inputs and compared in {len(subjects)} outputs"],
        wentBadly=[],
        lessons=["agreement of two programs shows the figures follow the rules, not that the rules are wise"],
        confidence=95,
    )
    return 0


def review(subjects: list[dict[str, Any]], expected: readback.Places) -> Iterator[str]:
    """Findings in order: digests, then each output. A finding is ``file pointer: what is wrong``."""
    missing = set(FILE_OF) - {subject["name"] for subject in subjects}
    yield from (f"{FILE_OF[name]} /: is not among the outputs" for name in sorted(missing))
    for subject in subjects:
        content = Path(subject["path"]).read_bytes()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if digest != subject["digest"]:
            yield f"{subject['name']} /: has the digest {digest}, to be reviewed was {subject['digest']}"
        if subject["name"] in FILE_OF:
            yield from compare(subject["name"], content.decode("utf-8", "replace"), expected)


def compare(name: str, text: str, expected: readback.Places) -> Iterator[str]:
    """Every difference between one output and what the inputs give."""
    if name == "audit":
        wanted = expected
        found, faults = readback.from_json(text)
    elif name == "report":
        wanted = {p: v for p, v in expected.items() if p != "/version"} | readback.remarks(expected)
        found, faults = readback.from_markdown(text, wanted)
    else:
        drawn = ("/figures/families/", "/figures/distributions")
        wanted = {p: v for p, v in expected.items() if p.startswith(drawn)}
        found, faults = readback.from_svg(text)
    file = FILE_OF[name]
    yield from (f"{file} {pointer or '/'}: {problem}" for pointer, problem in faults)
    for whole, words in ((wanted, found), (found, wanted)):
        verb = "is missing" if whole is wanted else "is not in the inputs"
        absent = {row(pointer) for pointer in whole} - {row(pointer) for pointer in words}
        yield from (f"{file} {pointer}: {verb}" for pointer in sorted(absent))
    known = {row(pointer) for pointer in wanted} & {row(pointer) for pointer in found}
    for pointer in sorted(set(wanted) | set(found)):
        says, gives = shown(found, pointer), shown(wanted, pointer)
        if row(pointer) in known and says != gives:
            yield f"{file} {pointer}: says {says}, the inputs give {gives}"


def row(pointer: str) -> str:
    """A distribution is missing as a whole, any other place by itself."""
    parts = pointer.split("/")
    return "/".join(parts[:3]) if parts[1] == "distributions" else pointer


def shown(places: readback.Places, pointer: str) -> str:
    return json.dumps(places[pointer], ensure_ascii=False) if pointer in places else "nothing"


def shortened(findings: list[str]) -> list[str]:
    """At most twenty lines of printable text, none over 256 characters."""
    lines = ["".join(char if char.isprintable() else "?" for char in finding) for finding in findings]
    if len(lines) > MOST_FINDINGS:
        rest = len(lines) - MOST_FINDINGS + 1
        lines = [*lines[: MOST_FINDINGS - 1], f"and {rest} more, all listed in the review session's journal"]
    return [line if len(line) <= LONGEST_FINDING else line[: LONGEST_FINDING - 1] + "…" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
