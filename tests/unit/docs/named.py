"""Tests as the pages name them."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def named_tests(text: str, folder: str) -> list[tuple[Path, str]]:
    """``path::name``; a reference without a path is of the file before it, a bare file of ``folder``."""
    found: list[tuple[Path, str]] = []
    for path, name in re.findall(r"`([\w/.]*)::(\w+)`", text):
        file = found[-1][0] if not path else REPOSITORY / (path if "/" in path else f"{folder}/{path}")
        found.append((file, name))
    return found


def defines(file: Path, name: str) -> bool:
    """Whether this module has a test of that name, of its own or of a suite of ``triplane.conformance`` it runs."""
    return any(re.search(rf"def {name}\(", text) for text in _sources(file))


def _sources(file: Path) -> Iterator[str]:
    text = file.read_text()
    yield text
    for module in re.findall(r"(?m)^from (triplane\.conformance\.\w+) import \*", text):
        yield (REPOSITORY / "src" / module.replace(".", "/")).with_suffix(".py").read_text()
