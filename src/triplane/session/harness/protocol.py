"""The lines a harness says, parsed: pure, so that every odd line can be a test.

Standard followed: docs/reference/exec-protocol.md, "What the program says".
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from triplane.domain.session import Usage

MAX_LINE = 64 * 1024
"""Octets of one line; the rest of a longer one is dropped."""
MAX_ENTRIES = 20
"""Lines in each list of a reflection."""
MAX_ENTRY = 2000
"""Characters of one line of a reflection."""
MAX_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A journal record: ``type`` is one of the gateway's record types."""

    type: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reflection:
    """The assessment of a run. ``source`` says who wrote it: ``harness`` or ``host``."""

    went_well: tuple[str, ...]
    went_badly: tuple[str, ...]
    lessons: tuple[str, ...] = ()
    confidence: int | None = None
    source: str = "harness"

    def wire(self) -> dict[str, Any]:
        """The JSON form of the ``finish`` call."""
        return {
            "wentWell": list(self.went_well),
            "wentBadly": list(self.went_badly),
            "lessons": list(self.lessons),
            "confidence": self.confidence,
            "source": self.source,
        }


Said = Record | Usage | Reflection


def parse(line: bytes) -> Said:
    """What one line of standard output means.

    Never raises: whatever is not a well-formed line of the protocol is a message of stream ``stdout``,
    kept as it was said.
    """
    text = line.decode("utf-8", "replace")
    try:
        said = json.loads(text, parse_constant=_refuse_constant)
        return _READERS[said["type"]](said)
    except (ValueError, KeyError, TypeError, RecursionError):
        return printed("stdout", text)


def printed(stream: str, text: str) -> Record:
    """A line that is kept as it was printed."""
    return Record("message", {"stream": stream, "text": text})


def _progress(said: Mapping[str, Any]) -> Record:
    payload: dict[str, Any] = {"message": _text(said["message"])}
    if said.get("percent") is not None:
        payload["percent"] = _integer(said["percent"], 100)
    return Record("activity", payload)


def _message(said: Mapping[str, Any]) -> Record:
    return Record("message", {"role": _text(said.get("role", "assistant")), "text": _text(said["text"])})


def _observation(said: Mapping[str, Any]) -> Record:
    identifier = _text(said["observationId"])
    if not 0 < len(identifier) <= 200:
        raise ValueError("observationId must have 1 to 200 characters")
    return Record(
        "observation",
        {"observationId": identifier, "kind": _text(said.get("kind", "")), "text": _text(said["text"])},
    )


def _usage(said: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=_integer(said.get("inputTokens", 0)),
        output_tokens=_integer(said.get("outputTokens", 0)),
        cost_minor_units=_integer(said.get("costMinorUnits", 0)),
    )


def _reflection(said: Mapping[str, Any]) -> Reflection:
    confidence = said.get("confidence")
    reflection = Reflection(
        went_well=_entries(said.get("wentWell", [])),
        went_badly=_entries(said.get("wentBadly", [])),
        lessons=_entries(said.get("lessons", [])),
        confidence=None if confidence is None else _integer(confidence, 100),
    )
    if not reflection.went_well and not reflection.went_badly:
        raise ValueError("a reflection says what went well or what went badly")
    return reflection


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Said]] = {
    "progress": _progress,
    "message": _message,
    "observation": _observation,
    "usage": _usage,
    "reflection": _reflection,
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value.encode("utf-8", "replace").decode()  # a lone surrogate is no text and breaks JSON over HTTP


def _integer(value: object, most: int = MAX_INTEGER) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"an integer from 0 to {most} expected")
    return value


def _entries(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise ValueError(f"a list of at most {MAX_ENTRIES} lines expected")
    entries = tuple(_text(item).strip() for item in value)
    if any(not 0 < len(entry) <= MAX_ENTRY for entry in entries):
        raise ValueError(f"each line has 1 to {MAX_ENTRY} characters")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
