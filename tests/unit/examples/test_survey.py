"""The surveyor and its reviewer agree on every step, and the reviewer finds what is altered."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from examples.workbench import EXAMPLES, PROGRAMS, digest, start

PAGES = EXAMPLES / "03-fan-out-and-merge" / "pages"
OUTPUTS = {
    "inventory": ("facts.json", "headline.txt"),
    "links": ("facts.json", "section.md"),
    "words": ("facts.json", "section.md"),
    "outline": ("facts.json", "section.md"),
    "escalate": ("headline.txt", "section.md"),
    "report": ("report.md", "summary.json"),
}


def survey(step: str, inputs: Mapping[str, Path], folder: Path) -> Path:
    outputs = folder / "outputs"
    outputs.mkdir(parents=True)
    order = {
        "role": "producer",
        "capabilities": [{"name": f"survey-{step}"}],
        "inputs": [{"name": name, "path": str(path)} for name, path in inputs.items()],
        "outputs": [{"name": Path(path).stem, "path": str(outputs / path)} for path in OUTPUTS[step]],
    }
    start(PROGRAMS / "page_survey" / "main.py", order, folder, {})
    return outputs


def verdict(step: str, inputs: Mapping[str, Path], outputs: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    subjects = [
        {"name": Path(path).stem, "path": str(outputs / path), "digest": digest(outputs / path)}
        for path in OUTPUTS[step]
    ]
    order = {
        "role": "reviewer",
        "inputs": [{"name": name, "path": str(path)} for name, path in inputs.items()],
        "outputs": [{"name": "verdict", "path": str(folder / "verdict.json")}],
        "review": {"subjects": subjects},
    }
    start(PROGRAMS / "page_survey_review" / "main.py", order, folder, {})
    loaded: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return loaded


@pytest.mark.parametrize("step", ["inventory", "links", "words", "outline"])
def test_a_step_over_the_pages_is_found_again_and_an_altered_figure_is_not(step: str, tmp_path: Path) -> None:
    outputs = survey(step, {"pages": PAGES}, tmp_path / "work")
    assert verdict(step, {"pages": PAGES}, outputs, tmp_path / "review")["findings"] == []
    facts = json.loads((outputs / "facts.json").read_text())
    name = next(name for name, value in facts.items() if isinstance(value, int))
    (outputs / "facts.json").write_text(json.dumps(facts | {name: facts[name] + 1}))
    found = verdict(step, {"pages": PAGES}, outputs, tmp_path / "again")
    assert found["verdict"] == "Reject"
    assert f"facts /{name}: says {facts[name] + 1}, the pages give {facts[name]}" in found["findings"]


def test_both_agree_on_the_pages_of_all_examples(tmp_path: Path) -> None:
    for step in ("inventory", "links", "words", "outline"):
        outputs = survey(step, {"pages": EXAMPLES}, tmp_path / step)
        assert verdict(step, {"pages": EXAMPLES}, outputs, tmp_path / f"{step}-review")["findings"] == []


def test_the_example_has_what_the_steps_look_for(tmp_path: Path) -> None:
    links = json.loads((survey("links", {"pages": PAGES}, tmp_path / "a") / "facts.json").read_text())
    assert links["where"] == ["guide/lamp.md → orders.md", "guide/storms.md → ../rail.md"]
    outline = json.loads((survey("outline", {"pages": PAGES}, tmp_path / "b") / "facts.json").read_text())
    assert outline["where"] == ["guide/storms.md"]


def test_the_report_says_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    given = {
        "facts": {"inventory": {"pages": 4}, "links": {"broken": 2}, "words": {"words": 90}},
        "counts": [4, 2, 90],
        "headline": "2 broken links must be mended\n",
        "sections": "## Links\n\n- checked: 3\n",
    }
    inputs = {}
    for name, value in given.items():
        inputs[name] = tmp_path / name
        inputs[name].write_text(value if isinstance(value, str) else json.dumps(value))
    outputs = survey("report", inputs, tmp_path / "work")
    assert verdict("report", inputs, outputs, tmp_path / "review")["verdict"] == "Approve"
    (outputs / "report.md").write_text("# All is well\n" + (outputs / "report.md").read_text().split("\n", 1)[1])
    assert verdict("report", inputs, outputs, tmp_path / "again")["verdict"] == "Reject"
