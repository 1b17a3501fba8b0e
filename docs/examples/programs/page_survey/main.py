"""The surveyor: one small program for every step of the survey; the capability says which step this is."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"#{1,6} \S")

Facts = dict[str, Any]
Texts = Mapping[str, str]


def say(kind: str, /, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    step = order["capabilities"][0]["name"].removeprefix("survey-")
    inputs = {entry["name"]: Path(entry["path"]) for entry in order["inputs"]}
    say("progress", message=f"survey step {step}", percent=10)
    made = STEPS[step](inputs)
    for output in order["outputs"]:
        Path(output["path"]).write_text(made[output["name"]], encoding="utf-8")
    say("usage", inputTokens=0, outputTokens=0, costMinorUnits=0)
    say("reflection", wentWell=[f"step {step} left {len(made)} outputs"], wentBadly=[], lessons=[], confidence=95)
    return 0


def pages(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Every Markdown page of the input, by its path in it."""
    root = inputs["pages"]
    return {file.relative_to(root).as_posix(): file.read_text("utf-8") for file in sorted(root.rglob("*.md"))}


def inventory(inputs: Mapping[str, Path]) -> Texts:
    found = pages(inputs)
    digests = {path: sha256(text.encode()).hexdigest() for path, text in found.items()}
    facts = {"pages": len(found), "octets": sum(len(text.encode()) for text in found.values()), "digests": digests}
    return {"facts": document(facts), "headline": f"{facts['pages']} pages, {facts['octets']} octets\n"}


def links(inputs: Mapping[str, Path]) -> Texts:
    found = pages(inputs)
    checked, broken = 0, []
    for path, text in found.items():
        for target in local_links(text):
            checked += 1
            if os.path.normpath(f"{Path(path).parent}/{target.partition('#')[0]}") not in found:
                broken.append(f"{path} → {target}")
    return with_section("Links", {"checked": checked, "broken": len(broken), "where": sorted(broken)})


def local_links(text: str) -> Iterator[str]:
    """Links from page to page; addresses elsewhere and anchors are not ours to follow."""
    return (target for target in LINK.findall(text) if "://" not in target and not target.startswith("#"))


def words(inputs: Mapping[str, Path]) -> Texts:
    counts = {path: len(text.split()) for path, text in pages(inputs).items()}
    longest = max(counts, key=lambda path: (counts[path], path))
    return with_section("Words", {"words": sum(counts.values()), "longest": longest})


def outline(inputs: Mapping[str, Path]) -> Texts:
    headings = {path: list(headings_of(text)) for path, text in pages(inputs).items()}
    untitled = sorted(path for path, lines in headings.items() if not any(line.startswith("# ") for line in lines))
    total = sum(len(lines) for lines in headings.values())
    return with_section("Outline", {"headings": total, "untitled": len(untitled), "where": untitled})


def headings_of(text: str) -> Iterator[str]:
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and HEADING.match(line):
            yield line


def escalate(inputs: Mapping[str, Path]) -> Texts:
    broken = json.loads(inputs["broken"].read_text("utf-8"))
    lines = ["## Mend first", "", *(f"- {entry}" for entry in broken)]
    return {"headline": f"{len(broken)} broken links must be mended\n", "section": "\n".join(lines) + "\n"}


def report(inputs: Mapping[str, Path]) -> Texts:
    facts = json.loads(inputs["facts"].read_text("utf-8"))
    counts = json.loads(inputs["counts"].read_text("utf-8"))
    headline = inputs["headline"].read_text("utf-8").strip()
    sections = inputs["sections"].read_text("utf-8").strip()
    text = f"# {headline}\n\nPages, broken links, words: {', '.join(map(str, counts))}.\n\n{sections}\n"
    return {"report": text, "summary": document({"facts": facts, "counts": counts})}


def with_section(title: str, facts: Facts) -> Texts:
    """The facts, and a section with a line for each that is one value."""
    lines = [f"- {name}: {value}" for name, value in facts.items() if not isinstance(value, list)]
    return {"facts": document(facts), "section": "\n".join([f"## {title}", "", *lines]) + "\n"}


def document(value: Facts) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


STEPS: Mapping[str, Callable[[Mapping[str, Path]], Texts]] = {
    function.__name__: function for function in (inventory, links, words, outline, escalate, report)
}

if __name__ == "__main__":
    sys.exit(main())
