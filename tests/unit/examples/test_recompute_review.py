"""The reviewer shares nothing with the producer, and no altered figure gets past it."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.workbench import PROGRAMS, produce, program_modules, review

REVIEWER = PROGRAMS / "recompute_review"


@pytest.fixture(scope="module")
def produced(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produce(made_up, tmp_path_factory.mktemp("produced") / "run").outputs


def test_the_reviewer_imports_nothing_but_the_standard_library_and_its_own_two_modules() -> None:
    own = {path.stem for path in REVIEWER.glob("*.py")}
    assert own == {"main", "readback", "recompute"}
    for path in REVIEWER.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= own | set(sys.stdlib_module_names)
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"__import__", "exec", "eval"}
        assert not {"importlib", "runpy", "subprocess", "email", "csv"} & names


def test_no_function_of_the_reviewer_is_a_function_of_the_producer() -> None:
    def functions(folder: Path) -> set[str]:
        trees = [ast.parse(path.read_text()) for path in folder.glob("*.py")]
        bodies = [
            n.body for tree in trees for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name != "say"
        ]
        return {"\n".join(ast.unparse(statement) for statement in body) for body in bodies}

    assert not functions(REVIEWER) & functions(PROGRAMS / "licence_audit")


def test_the_reviewer_works_where_the_producer_is_not(made_up: Path, produced: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(REVIEWER, alone, ignore=shutil.ignore_patterns("__pycache__"))
    assert review(made_up, produced, tmp_path / "review", program=alone)["verdict"] == "Approve"


@pytest.mark.parametrize(
    ("file", "before", "after", "place"),
    [
        pytest.param(
            "audit.json",
            '"distributions": 8',
            '"distributions": 9',
            "/figures/distributions",
            id="a total in the JSON",
        ),
        pytest.param(
            "audit.json",
            '"permissive": 4',
            '"permissive": 5',
            "/figures/families/permissive",
            id="a count in the JSON",
        ),
        pytest.param(
            "audit.json",
            '"version": "4"',
            '"version": "5"',
            "/distributions/long-text/version",
            id="a version in the JSON",
        ),
        pytest.param(
            "report.md",
            "| distributions | 8 |",
            "| distributions | 7 |",
            "/figures/distributions",
            id="a total in the report",
        ),
        pytest.param(
            "report.md",
            "| dual | 2.0 | MPL-2.0",
            "| dual | 2.0 | MIT",
            "/distributions/dual/licence",
            id="a licence in the report",
        ),
        pytest.param(
            "report.md",
            "Copyleft terms bind strong.",
            "Copyleft terms bind old.",
            "/remarks/Copyleft",
            id="a name in a sentence",
        ),
        pytest.param(
            "report.md",
            "## Figures",
            "All 9 are fine.\n\n## Figures",
            "outside the tables",
            id="a figure outside the tables",
        ),
        pytest.param(
            "report.md",
            "| old | 3 |",
            "| old | 3 |\n| older | 4 |",
            "fits no table",
            id="a row that fits no table",
        ),
        pytest.param("chart.svg", ">4</text>", ">5</text>", "/figures/families/permissive", id="a number in the chart"),
        pytest.param(
            "chart.svg",
            'width="400" height="22"',
            'width="300" height="22"',
            "/figures/families/permissive",
            id="the length of a bar",
        ),
        pytest.param(
            "chart.svg",
            ">8 distributions",
            ">9 distributions",
            "/figures/distributions",
            id="the total in the chart",
        ),
        pytest.param(
            "chart.svg",
            'id="bar-copyleft"',
            'id="bar-copyleft" transform="scale(2)"',
            "transform",
            id="a bar stretched by a transform",
        ),
    ],
)
def test_one_altered_place_is_rejected_and_named(
    made_up: Path, produced: Path, tmp_path: Path, file: str, before: str, after: str, place: str
) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(produced, altered)
    text = (altered / file).read_text()
    assert before in text
    (altered / file).write_text(text.replace(before, after, 1))
    verdict = review(made_up, altered, tmp_path / "review")
    assert verdict["verdict"] == "Reject"
    assert all(finding.startswith(file) for finding in verdict["findings"])
    assert any(place in finding for finding in verdict["findings"])


def test_no_number_of_any_output_can_change_unnoticed(made_up: Path, produced: Path) -> None:
    """Every digit run of the three files, one at a time, is raised; the drawing's own geometry aside."""
    with program_modules("recompute_review", "recompute", "main") as (recompute, main):
        expected = recompute.expected(made_up)
        for name, file in (("audit", "audit.json"), ("report", "report.md"), ("chart", "chart.svg")):
            text = (produced / file).read_text()
            assert list(main.compare(name, text, expected)) == []
            unnoticed = [
                (file, before)
                for before, altered in _altered(file, text)
                if not list(main.compare(name, altered, expected))
            ]
            assert unnoticed == []


def _altered(file: str, text: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"\d+", text):
        line = text[text.rfind("\n", 0, match.start()) + 1 : text.find("\n", match.end())]
        if file == "chart.svg" and not re.search(r">[^<]*$", text[: match.start()]):
            before = text[text.rfind(" ", 0, match.start()) + 1 : match.start()]
            if before != 'width="' or "bar-" not in line or match.group() == "0":
                continue  # a position, a size of the canvas or a colour
            yield line, text[: match.start()] + str(int(match.group()) + 3) + text[match.end() :]
        else:
            yield line, text[: match.start()] + str(int(match.group()) + 1) + text[match.end() :]


def test_a_missing_row_is_one_finding_not_eighteen(made_up: Path, produced: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(produced, altered)
    audit = json.loads((altered / "audit.json").read_text())
    del audit["distributions"]["old"]
    (altered / "audit.json").write_text(json.dumps(audit))
    assert review(made_up, altered, tmp_path / "review")["findings"] == ["audit.json /distributions/old: is missing"]


def test_a_verdict_keeps_to_twenty_lines_of_256_characters(made_up: Path, produced: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(produced, altered)
    audit = json.loads((altered / "audit.json").read_text())
    for row in audit["distributions"].values():
        row.update(files=0, hashed=0, bytes=0, licence="\u202ex" * 300)
    (altered / "audit.json").write_text(json.dumps(audit))
    findings = review(made_up, altered, tmp_path / "review")["findings"]
    assert len(findings) == 20
    assert findings[-1].startswith("and ")
    assert all(len(finding) <= 256 and finding.isprintable() for finding in findings)


VOCABULARY = (
    "MIT mit-0 Apache-2.0 GPL-3.0-only LGPL BSD 0BSD CC0-1.0 Custom AND OR and WITH ( ) LLVM-exception "
    "& | #1 BSD-3-Clause MPL-2.0 UNKNOWN GPLx3"
)
WORDS = st.sampled_from(VOCABULARY.split())


@given(st.lists(WORDS, max_size=9).map(" ".join))
def test_both_programs_read_any_licence_expression_alike(expression: str) -> None:
    with (
        program_modules("licence_audit", "licences") as (licences,),
        program_modules("recompute_review", "recompute") as (recompute,),
    ):
        assert licences.family(expression, "License") == recompute.family(expression)


def test_both_programs_know_the_same_spellings_and_families() -> None:
    with (
        program_modules("licence_audit", "licences") as (licences,),
        program_modules("recompute_review", "recompute") as (recompute,),
    ):
        for spelling, identifier in licences._ALIASES.items():
            assert recompute.spdx(spelling.upper()) == identifier
            assert recompute.family(identifier) == licences.family(identifier, "License") != "other"
        for identifier, family in licences._FAMILY.items():
            assert recompute.family(identifier) == family
        listed = re.findall(r"[:;]\s*([^;\n]+)", recompute.SPELLINGS)
        assert {" ".join(spelling.split()) for spelling in listed} == set(licences._ALIASES)
