"""docs/reference/attack-table.md names a test for every row, and only tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "attack-table.md").read_text()
ROWS = range(1, 29)
PARTS = ("Caught by", "Says", "Tests", "Without it")
_ROW = re.compile(r"^### (\d+) · ", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> dict[int, dict[str, str]]:
    """What stands under each row's heading, by part."""
    pieces = _ROW.split(PAGE)[1:]
    found: dict[int, dict[str, str]] = {}
    for number, text in zip(pieces[::2], pieces[1::2], strict=True):
        assert int(number) not in found, f"row {number} stands there twice"
        found[int(number)] = dict(re.findall(r"^- \*\*([^*]+)\*\* (.+)$", text, re.MULTILINE))
    return found


@cache
def functions_in(path: str) -> frozenset[str]:
    """The functions a file defines, or takes over from a conformance suite; none when there is no such file."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            found |= functions_in(f"src/{(node.module or '').replace('.', '/')}.py")
    return frozenset(found)


def test_every_row_is_there_once_and_in_order() -> None:
    assert list(rows()) == list(ROWS)


@pytest.mark.parametrize("number", ROWS)
def test_a_row_says_everything_and_names_tests_of_both_kinds(number: int) -> None:
    row = rows()[number]
    assert tuple(row) == PARTS
    assert _TEST.search(row["Tests"]), "no test in which it is refused"
    assert _TEST.search(row["Without it"]), "no test in which the attack first succeeds"


@pytest.mark.parametrize("number", ROWS)
def test_the_tests_of_a_row_exist(number: int) -> None:
    row = rows()[number]
    named = [test for part in ("Tests", "Without it") for test in _TEST.findall(row[part])]
    assert len(named) == row["Tests"].count("::") + row["Without it"].count("::"), "a reference that is not read"
    assert [f"{path}::{name}" for path, name in named if name not in functions_in(path)] == []
