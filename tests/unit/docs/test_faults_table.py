"""The table of faults names tests that exist, and every fault of the list is either in it or called not yet."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
TEXT = (REPOSITORY / "docs/reference/faults.md").read_text()
FAULTS = set(range(1, 38))


def rows() -> dict[int, str]:
    return {int(number): line for number, line in re.findall(r"(?m)^\| (\d+) \|(.*)$", TEXT)}


def named_tests(text: str) -> list[tuple[Path, str]]:
    """``path::name``; a reference without a path is of the file before it, a bare file of this tier."""
    found: list[tuple[Path, str]] = []
    for path, name in re.findall(r"`([\w/.]*)::(\w+)`", text):
        file = found[-1][0] if not path else REPOSITORY / (path if "/" in path else f"tests/faults/{path}")
        found.append((file, name))
    return found


def test_every_fault_is_in_the_table_or_called_not_yet() -> None:
    later = TEXT[TEXT.index("Not yet, for a later version") :]
    not_yet = {int(number) for number in re.findall(r"(?<![\d,])(\d\d) \(", later)}
    assert set(rows()) | not_yet == FAULTS
    assert not set(rows()) & not_yet
    assert all(named_tests(line) for line in rows().values())


def test_every_test_named_exists() -> None:
    for file, name in named_tests(TEXT):
        assert file.is_file(), file
        assert re.search(rf"def {name}\(", file.read_text()), f"no {name} in {file}"
