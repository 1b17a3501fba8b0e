"""The table of bad inputs names tests that exist: a reference to a test that is gone proves nothing."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
ROWS = set(range(1, 38))


def rows() -> dict[int, str]:
    text = (REPOSITORY / "docs/reference/bad-input.md").read_text()
    return {int(number): line for number, line in re.findall(r"(?m)^\| (\d+) \|(.*)$", text)}


def named_tests(line: str) -> list[tuple[Path, str]]:
    """``path::name``; a reference without a path is of the file before it, a bare file of the e2e tier."""
    found: list[tuple[Path, str]] = []
    for path, name in re.findall(r"`([\w/.]*)::(\w+)`", line):
        file = found[-1][0] if not path else REPOSITORY / (path if "/" in path else f"tests/e2e/{path}")
        found.append((file, name))
    return found


def test_every_row_that_applies_is_listed_with_a_test() -> None:
    assert set(rows()) == ROWS
    assert all(named_tests(line) for line in rows().values())


def test_every_test_named_exists() -> None:
    for number, line in rows().items():
        for file, name in named_tests(line):
            assert file.is_file(), f"row {number}: {file}"
            assert re.search(rf"def {name}\(", file.read_text()), f"row {number}: no {name} in {file}"
