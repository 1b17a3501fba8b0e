"""JSON as every store can keep it: what one backend refuses, all refuse, before anything is written.

PostgreSQL's jsonb has no NUL character, JSON no NaN and UTF-8 no lone surrogate.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from triplane.errors import InvalidInput

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def json_text(value: Any) -> str:
    """The value as JSON text. Raises ``InvalidInput`` for NUL, NaN, infinities, lone surrogates, other types."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_plain)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"this value cannot be kept as JSON: {error}; change it") from error
    if _NUL.search(text):
        raise InvalidInput("this value cannot be kept as JSON: a string or key in it holds a NUL; remove it")
    return text


def json_copy(value: Any) -> Any:
    """A deep copy of plain dictionaries and lists. Raises as ``json_text``."""
    return json.loads(json_text(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")
