"""How the contents of several edges become one input: a pure function, the same parts give the same octets.

Documents are parsed as JSON (RFC 8259) and written in canonical form (RFC 8785); a text is a document too, a string.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from triplane.api.work import Merge
from triplane.audit.digest import canonical_json
from triplane.domain.pointer import PointerMissing, get, put
from triplane.errors import InvalidInput

MAX_COMPOSED: Final = 4 * 1024 * 1024
"""Octets of one composed input, and of all that it is made of. Larger contents are passed as they are, by a single
``from`` without ``path``."""


class Unmergeable(InvalidInput):
    """The contents cannot become one input; ``reason`` is a word of docs/reference/reasons.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """What one edge brings."""

    step: str
    """Name of the step, or of the Task, for messages and as the default place in a JsonObject."""
    output: str
    content: bytes
    media_type: str
    path: str | None = None
    to: str | None = None

    @property
    def where(self) -> str:
        return f"output {self.output} of step {self.step}"


def merge(parts: Sequence[Part], how: Merge) -> bytes:
    """The octets of the input. ``parts`` (at least one) are in the order of the list. Raises ``Unmergeable``."""
    match how:
        case Merge.LAST_WRITE_WINS:
            octets = _octets(parts[-1])
        case Merge.CONCAT:
            octets = _concatenated(parts)
        case Merge.ARRAY:
            octets = _canonical([_document(part) for part in parts])
        case Merge.JSON_OBJECT:
            octets = _object(parts)
    if len(octets) > MAX_COMPOSED:
        raise too_large(len(octets))
    return octets


def too_large(size: int) -> Unmergeable:
    """What is said of more than ``MAX_COMPOSED`` octets."""
    return Unmergeable(
        "InputTooLarge",
        f"{size} octets would be composed, {MAX_COMPOSED} are allowed; take one output whole (`from` without `path`)",
    )


def _object(parts: Sequence[Part]) -> bytes:
    document: dict[str, Any] = {}
    for part in parts:
        pointer = part.to if part.to is not None else "/" + part.step.replace("~", "~0").replace("/", "~1")
        try:
            put(document, pointer, _document(part))
        except PointerMissing as error:
            raise Unmergeable("InputNotMergeable", f"{part.where} cannot be put into the input: {error}") from error
    return _canonical(document)


def _concatenated(parts: Sequence[Part]) -> bytes:
    """A newline between texts that lack one; other octets are left alone."""
    whole = bytearray()
    after_text = False
    for part in parts:
        octets, text = _octets(part), _is_text(part)
        if after_text and text and octets and not whole.endswith(b"\n"):
            whole += b"\n"
        whole += octets
        after_text = text if octets else after_text
    return bytes(whole)


def _octets(part: Part) -> bytes:
    """The output as it is, or the value inside it: a string as its text, anything else as JSON."""
    if part.path is None:
        return part.content
    value = _document(part)
    return value.encode() if isinstance(value, str) else _canonical(value)


def _document(part: Part) -> Any:
    """The value of the part: what its path points at in the JSON, or all of it; a text without a path is a string."""
    if part.path is None and not _is_json(part):
        try:
            return part.content.decode()
        except UnicodeDecodeError as error:
            raise Unmergeable(
                "InputNotMergeable", f"{part.where} is {part.media_type} and no UTF-8 text: {error}"
            ) from error
    try:
        document = orjson.loads(part.content)
    except orjson.JSONDecodeError as error:
        raise Unmergeable("InputNotMergeable", f"{part.where} is no JSON: {error}") from error
    if part.path is None:
        return document
    try:
        return get(document, part.path)
    except PointerMissing as error:
        raise Unmergeable("InputPathMissing", f"{part.where}: {error}") from error


def _canonical(value: Any) -> bytes:
    try:
        return canonical_json(value)
    except InvalidInput as error:
        raise Unmergeable(
            "InputNotMergeable", f"the composed JSON has no canonical form (RFC 8785): {error}"
        ) from error


def _is_json(part: Part) -> bool:
    kind = part.media_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_text(part: Part) -> bool:
    return part.path is not None or _is_json(part) or part.media_type.lower().startswith("text/")
