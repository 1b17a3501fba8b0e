"""JSON Pointer (RFC 6901): reading a value inside a document, and putting one into an object."""

import re
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class PointerMissing(LookupError):
    """The document has nothing there; the message says where the way ends."""


def tokens(pointer: str) -> tuple[str, ...]:
    """The reference tokens, unescaped (section 4: ``~1`` before ``~0``). Raises ``ValueError``."""
    if pointer == "":
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON Pointer: it must be empty or begin with /")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))


def get(document: Any, pointer: str) -> Any:
    """The value the pointer refers to. Raises ``PointerMissing``."""
    value = document
    way = ""
    for token in tokens(pointer):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            raise PointerMissing(f"{pointer} leads nowhere: {_what(value)} at {way or 'the root'} has no {token!r}")
        way += f"/{token}"
    return value


def put(document: dict[str, Any], pointer: str, value: Any) -> None:
    """Put the value there; objects on the way are made. What was there is replaced.

    The empty pointer stands for the whole document: the members of ``value``, which must be an object, are put into
    it. Raises ``PointerMissing`` where something that is no object stands on the way.
    """
    way = tokens(pointer)
    if not way:
        if not isinstance(value, dict):
            raise PointerMissing(f"the whole input can only be filled by an object, not by {_what(value)}")
        document.update(value)
        return
    at = document
    for depth, token in enumerate(way[:-1]):
        at = at.setdefault(token, {})
        if not isinstance(at, dict):
            raise PointerMissing(f"{pointer} leads through {_what(at)} at /{'/'.join(way[: depth + 1])}")
    at[way[-1]] = value


def _what(value: Any) -> str:
    match value:
        case dict():
            return "the object"
        case list():
            return f"the array of {len(value)}"
        case bool() | None:
            return f"the value {str(value).lower() if value is not None else 'null'}"
        case str():
            return "a text"
        case _:
            return "a number"
