"""What a tool answers, and what of it may be passed on and kept."""

import json
from collections.abc import Mapping
from typing import Any, Final

from triplane.audit.digest import canonical_json
from triplane.domain.journal import clean_json, escape_text
from triplane.errors import InvalidInput
from triplane.session.tools.peer import ServerFailed

MAX_RESULT: Final = 1024 * 1024
"""Octets of one result."""
_BEGUN: Final = 4096
"""Characters told of what is not stored whole."""
_CONTENT: Final = frozenset({"text", "image", "audio", "resource", "resource_link"})


def text_result(text: str, *, failed: bool = False) -> Mapping[str, Any]:
    """A ``CallToolResult`` of one text."""
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def checked_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a ``CallToolResult`` that are passed on. Raises ``ServerFailed`` for what is none."""
    content = result.get("content", [])
    if not isinstance(content, list) or not all(isinstance(i, dict) and i.get("type") in _CONTENT for i in content):
        raise ServerFailed('its result is no CallToolResult (MCP, "Tool Result")')
    found: dict[str, Any] = {"content": content, "isError": result.get("isError") is True}
    if isinstance(result.get("structuredContent"), dict):
        found["structuredContent"] = result["structuredContent"]
    size = len(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_RESULT:
        raise ServerFailed(f"its result has {size} octets; at most {MAX_RESULT} are passed on. Ask for less")
    return found


def storable(value: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], str | None]:
    """What can be told of it, and why that is not the whole."""
    try:
        if (size := len(canonical_json(clean_json(value)))) <= limit:
            return dict(value), None
        problem = f"{size} octets"
    except InvalidInput as error:
        problem = str(error)
    begun = json.dumps(value, ensure_ascii=True, default=str)[:_BEGUN]
    return {"unstorable": escape_text(problem, lines=True)[:500], "begins": begun}, problem
