"""The table of bad inputs names tests that exist: a reference to a test that is gone proves nothing."""

import re

from tests.unit.docs.named import REPOSITORY, defines, named_tests

ROWS = set(range(1, 38))


def rows() -> dict[int, str]:
    text = (REPOSITORY / "docs/reference/bad-input.md").read_text()
    return {int(number): line for number, line in re.findall(r"(?m)^\| (\d+) \|(.*)$", text)}


def test_every_row_that_applies_is_listed_with_a_test() -> None:
    assert set(rows()) == ROWS
    assert all(named_tests(line, "tests/e2e") for line in rows().values())


def test_every_test_named_exists() -> None:
    for number, line in rows().items():
        for file, name in named_tests(line, "tests/e2e"):
            assert file.is_file(), f"row {number}: {file}"
            assert defines(file, name), f"row {number}: no {name} in {file}"
