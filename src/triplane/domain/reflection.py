"""Reflections: the mandatory assessment of a run. A blob of JSON, in the shape the exec protocol gives it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_LINES = 20
MAX_LINE = 2000
_LISTS = ("wentWell", "wentBadly", "lessons")
_MEMBERS = frozenset({*_LISTS, "confidence", "source", "type"})


def texts_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Everything it says, line by line."""
    for name in _LISTS:
        yield from (line for line in document.get(name) or () if isinstance(line, str))


def mentions(document: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether every word stands somewhere in it, whatever its case; no words stand in everything."""
    said = "\n".join(texts_of(document)).casefold()
    return all(word.casefold() in said for word in words)


def as_sure(document: Mapping[str, Any], least: int | None) -> bool:
    """Whether its confidence is at least this; one that tells none is not, unless nothing is asked."""
    confidence = document.get("confidence")
    return least is None or (type(confidence) is int and confidence >= least)


def reflection_problem(document: Any) -> str | None:
    """Why this is no reflection; None if it is one (docs/reference/exec-protocol.md)."""
    if not isinstance(document, Mapping):
        return "a reflection is a JSON object"
    if unknown := sorted(set(document) - _MEMBERS):
        return f"a reflection has no member {unknown[0]!r}"
    for name in _LISTS:
        lines = document.get(name, [])
        if not isinstance(lines, list) or not all(isinstance(line, str) and line.strip() for line in lines):
            return f"{name} must be a list of non-empty strings"
        if len(lines) > MAX_LINES or any(len(line) > MAX_LINE for line in lines):
            return f"{name} may have {MAX_LINES} lines of {MAX_LINE} characters"
    confidence = document.get("confidence")
    if confidence is not None and (type(confidence) is not int or not 0 <= confidence <= 100):
        return "confidence must be an integer from 0 to 100"
    if document.get("source", "harness") not in {"harness", "host"}:
        return "source is harness (it said so) or host (which speaks for a run that could not)"
    if not document.get("wentWell") and not document.get("wentBadly"):
        return "wentWell and wentBadly are both empty: say what went well or what went badly"
    return None
