"""The table of faults names tests that exist, and every fault of the list is either in it or called not yet."""

import re

from tests.unit.docs.named import REPOSITORY, defines, named_tests

TEXT = (REPOSITORY / "docs/reference/faults.md").read_text()
FAULTS = set(range(1, 38))


def rows() -> dict[int, str]:
    return {int(number): line for number, line in re.findall(r"(?m)^\| (\d+) \|(.*)$", TEXT)}


def test_every_fault_is_in_the_table_or_called_not_yet() -> None:
    later = TEXT[TEXT.index("Not yet, for a later version") :]
    not_yet = {int(number) for number in re.findall(r"(?<![\d,])(\d\d) \(", later)}
    assert set(rows()) | not_yet == FAULTS
    assert not set(rows()) & not_yet
    assert all(named_tests(line, "tests/faults") for line in rows().values())


def test_every_test_named_exists() -> None:
    for file, name in named_tests(TEXT, "tests/faults"):
        assert file.is_file(), file
        assert defines(file, name), f"no {name} in {file}"
