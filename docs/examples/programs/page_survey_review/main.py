"""Bob's reviewer of the survey: finds every figure again in its own way, and compares.

It shares no code with the surveyor. Where that uses regular expressions, this reads character by character.
"""

import hashlib
import json
import os
import posixpath
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

Expected = dict[str, Any]


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    inputs = {entry["name"]: Path(entry["path"]) for entry in order["inputs"]}
    subjects = order["review"]["subjects"]
    outputs = {subject["name"]: Path(subject["path"]).read_bytes() for subject in subjects}
    findings = [
        f"{subject['name']}: its digest is not {subject['digest']}"
        for subject in subjects
        if "sha256:" + hashlib.sha256(outputs[subject["name"]]).hexdigest() != subject["digest"]
    ]
    findings += differences(inputs, {name: content.decode("utf-8", "replace") for name, content in outputs.items()})
    verdict = {
        "verdict": "Reject" if findings else "Approve",
        "findings": [finding[:256] for finding in findings[:20]],
        "subjects": [{"name": subject["name"], "digest": subject["digest"]} for subject in subjects],
    }
    Path(order["outputs"][0]["path"]).write_text(json.dumps(verdict) + "\n", encoding="utf-8")
    well = f"{len(subjects)} outputs found again from the inputs"
    print(json.dumps({"type": "reflection", "wentWell": [well], "wentBadly": [], "lessons": [], "confidence": 95}))
    return 0


def differences(inputs: Mapping[str, Path], outputs: Mapping[str, str]) -> Iterator[str]:
    if "report" in outputs:
        yield from report_differences(inputs, outputs)
    elif "broken" in inputs:
        yield from escalation_differences(inputs, outputs)
    else:
        yield from facts_differences(survey(inputs["pages"]), outputs)


def facts_differences(found: Expected, outputs: Mapping[str, str]) -> Iterator[str]:
    said = json.loads(outputs["facts"])
    step = next((step for step, facts in found.items() if set(facts) == set(said)), None)
    if step is None:
        yield f"facts: no step leaves exactly {', '.join(sorted(said))}"
        return
    for name, value in found[step].items():
        if said[name] != value:
            yield f"facts /{name}: says {said[name]!r}, the pages give {value!r}"
    if "section" in outputs:
        told = dict(line[2:].split(": ", 1) for line in outputs["section"].splitlines() if line.startswith("- "))
        wanted = {name: str(value) for name, value in found[step].items() if not isinstance(value, list)}
        if told != wanted:
            yield f"section: says {told}, the pages give {wanted}"
    if "headline" in outputs:
        wanted_line = f"{found[step]['pages']} pages, {found[step]['octets']} octets"
        if outputs["headline"].strip() != wanted_line:
            yield f"headline: is not {wanted_line!r}"


def escalation_differences(inputs: Mapping[str, Path], outputs: Mapping[str, str]) -> Iterator[str]:
    broken = json.loads(inputs["broken"].read_text("utf-8"))
    if outputs["headline"].strip() != f"{len(broken)} broken links must be mended":
        yield f"headline: there are {len(broken)} broken links"
    listed = [line[2:] for line in outputs["section"].splitlines() if line.startswith("- ")]
    if listed != broken:
        yield f"section: lists {listed}, broken are {broken}"


def report_differences(inputs: Mapping[str, Path], outputs: Mapping[str, str]) -> Iterator[str]:
    facts = json.loads(inputs["facts"].read_text("utf-8"))
    counts = json.loads(inputs["counts"].read_text("utf-8"))
    if json.loads(outputs["summary"]) != {"facts": facts, "counts": counts}:
        yield "summary: is not the facts and counts that were given"
    if counts != [facts["inventory"]["pages"], facts["links"]["broken"], facts["words"]["words"]]:
        yield f"counts: {counts} do not agree with the facts"
    title, _, rest = outputs["report"].partition("\n")
    if title != "# " + inputs["headline"].read_text("utf-8").strip():
        yield f"report: the title {title!r} is not the headline"
    if ", ".join(str(count) for count in counts) not in rest.splitlines()[1]:
        yield "report: the counts are not on its third line"
    if not rest.endswith(inputs["sections"].read_text("utf-8").strip() + "\n"):
        yield "report: the sections are not all there"


def survey(root: Path) -> dict[str, Expected]:
    """What each step must have found."""
    texts = {str(file.relative_to(root)): file.read_bytes() for file in root.glob("**/*.md")}
    plain = {path: content.decode("utf-8") for path, content in sorted(texts.items())}
    targets = [(path, target) for path, text in plain.items() for target in link_targets(text)]
    broken = sorted(f"{path} → {target}" for path, target in targets if not leads_to_a_page(path, target, plain))
    lengths = sorted((sum(1 for is_word, _ in groupby(text, lambda c: not c.isspace()) if is_word), path)
                     for path, text in plain.items())  # fmt: skip
    headings = {path: list(headings_in(text)) for path, text in plain.items()}
    untitled = [path for path, levels in headings.items() if 1 not in levels]
    return {
        "inventory": {
            "pages": len(texts),
            "octets": sum(map(len, texts.values())),
            "digests": {path: hashlib.sha256(content).hexdigest() for path, content in texts.items()},
        },
        "links": {"checked": len(targets), "broken": len(broken), "where": broken},
        "words": {"words": sum(count for count, _ in lengths), "longest": lengths[-1][1]},
        "outline": {"headings": sum(map(len, headings.values())), "untitled": len(untitled), "where": sorted(untitled)},
    }


def link_targets(text: str) -> Iterator[str]:
    at = text.find("](")
    while at >= 0:
        end = next((i for i in range(at + 2, len(text)) if text[i] == ")" or text[i].isspace()), -1)
        opened = text.rfind("[", text.rfind("\n", 0, at) + 1, at)
        target = text[at + 2 : end]
        is_link = end > at + 2 and text[end] == ")" and opened >= 0 and "]" not in text[opened:at]
        if is_link and "://" not in target and target[0] != "#":
            yield target
        at = text.find("](", at + 1)


def leads_to_a_page(path: str, target: str, texts: Mapping[str, str]) -> bool:
    page = target.partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), page)) in texts


def headings_in(text: str) -> Iterator[int]:
    """Levels of the headings: what stands between two fences is code."""
    outside = True
    for line in text.split("\n"):
        if line[:3] == "```":
            outside = not outside
        marks = len(line) - len(line.lstrip("#"))
        if outside and 1 <= marks <= 6 and line[marks : marks + 1] == " " and line[marks + 1 : marks + 2].strip():
            yield marks


if __name__ == "__main__":
    sys.exit(main())
