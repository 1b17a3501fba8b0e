"""Patterns for names (``api.authority.Pattern``): ``*`` stands for any characters but ``/``, ``**`` alone for
everything."""

from collections.abc import Sequence
from typing import Final

EVERYTHING: Final = "**"


def fits(pattern: str, name: str) -> bool:
    """Whether the whole name is what the pattern describes. Never backtracks: patterns are other people's."""
    if pattern == EVERYTHING:
        return True
    if "*" not in pattern:
        return pattern == name
    segments, parts = pattern.split("/"), name.split("/")
    return len(segments) == len(parts) and all(map(_fits_segment, segments, parts))


def _fits_segment(segment: str, text: str) -> bool:
    """``*`` is any text here. Each piece between two of them is taken where it first occurs: that leaves the most."""
    first, *middle = segment.split("*")
    if not middle:
        return first == text
    last = middle.pop()
    end = len(text) - len(last)
    if end < len(first) or not text.startswith(first) or not text.endswith(last):
        return False
    at = len(first)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def any_fits(patterns: Sequence[str] | None, name: str) -> bool:
    """Whether one of them fits; an absent list fits every name, an empty one none."""
    return patterns is None or any(fits(pattern, name) for pattern in patterns)
