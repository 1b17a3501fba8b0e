"""An MCP server as the host sees it: shaken hands with once, listed, then called. What it says of itself is reported,
never believed: nothing it sends widens what may be called.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from triplane.api.text import plain_line
from triplane.audit.digest import canonical_json, digest_of_bytes
from triplane.domain.journal import escape_json, escape_text
from triplane.errors import InvalidInput, TriplaneError
from triplane.session.tools import rpc

PROTOCOL: Final = "2025-11-25"
UNDERSTOOD: Final = frozenset({PROTOCOL, "2025-06-18", "2025-03-26", "2024-11-05"})
START_SECONDS: Final = 60.0
"""For a server to start, shake hands and list its operations."""
MAX_OPERATIONS: Final = 512
MAX_PAGES: Final = 50
MAX_LISTED: Final = 1024 * 1024
"""Octets of all definitions of one server."""
MAX_DESCRIPTION: Final = 16 * 1024
_DEFINED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")


class ServerFailed(TriplaneError):
    """The server is gone, broke the protocol, or answered with an error of it."""


class ServerSlow(ServerFailed):
    """No answer in time."""


class Channel(Protocol):
    """A way to one server. ``exchange`` may be called concurrently."""

    async def exchange(self, id_: int, octets: bytes, seconds: float) -> rpc.Response:
        """Send a request and wait for its answer. Raises ``ServerFailed``, ``ServerSlow``."""
        ...

    async def notify(self, octets: bytes) -> None:
        """Send a notification; lost when the server is gone."""
        ...

    def settled(self, version: str) -> None:
        """The protocol revision that was agreed on."""
        ...

    async def close(self) -> None:
        """End it, and what runs for it. May be called again."""
        ...


@dataclass(frozen=True, slots=True)
class Definition:
    """An operation as its server defines it, cleaned for the model, and the digest of what the server sent."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    title: str | None
    annotations: Mapping[str, Any] | None
    digest: str


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself."""

    name: str
    version: str
    protocol: str


class Peer:
    """One server. ``changed`` is set when it says that its list is another by now."""

    def __init__(self, name: str, channel: Channel) -> None:
        self._name = name
        self._channel = channel
        self._number = 0
        self.changed = False

    async def shake_hands(self) -> About:
        """Initialize (MCP lifecycle). Raises ``ServerFailed`` where the server speaks another protocol."""
        answer = await self._call(
            "initialize",
            {
                "protocolVersion": PROTOCOL,
                "capabilities": {},
                "clientInfo": {"name": "triplane", "title": "Triplane session host", "version": "1"},
            },
            START_SECONDS,
        )
        version, info = answer.get("protocolVersion"), answer.get("serverInfo")
        if version not in UNDERSTOOD:
            raise ServerFailed(f"it speaks MCP {str(version)[:40]!r}; understood are {', '.join(sorted(UNDERSTOOD))}")
        info = info if isinstance(info, dict) else {}
        self._channel.settled(str(version))
        await self._channel.notify(rpc.notification("notifications/initialized"))
        return About(_word(info.get("name")), _word(info.get("version")), str(version))

    async def list(self) -> dict[str, Definition]:
        """Its operations by name. Raises ``ServerFailed`` for one that breaks the protocol or a limit."""
        self.changed = False
        found: dict[str, Definition] = {}
        cursor: str | None = None
        octets = 0
        for _ in range(MAX_PAGES):
            answer = await self._call("tools/list", {"cursor": cursor} if cursor is not None else {}, START_SECONDS)
            listed = answer.get("tools")
            if not isinstance(listed, list):
                raise ServerFailed("its tools/list holds no list")
            if len(listed) > MAX_OPERATIONS:
                raise ServerFailed(f"it lists more than {MAX_OPERATIONS} operations")
            # Aside: what a server makes of a page may take seconds to clean, and the runner has other runs.
            for definition, size in await asyncio.to_thread(_definitions, listed):
                octets += size
                if definition.name in found:
                    raise ServerFailed(f"it lists {definition.name} twice")
                found[definition.name] = definition
            if len(found) > MAX_OPERATIONS or octets > MAX_LISTED:
                raise ServerFailed(f"it lists more than {MAX_OPERATIONS} operations, or {MAX_LISTED} octets of them")
            cursor = answer.get("nextCursor")
            if cursor is None:
                return found
            if not isinstance(cursor, str):
                raise ServerFailed("its cursor is no string")
        raise ServerFailed(f"its list has more than {MAX_PAGES} pages")

    async def call(self, operation: str, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """Call an operation; returns the ``CallToolResult`` as it came. Raises ``ServerFailed``, ``ServerSlow``."""
        return await self._call("tools/call", {"name": operation, "arguments": dict(arguments)}, seconds)

    async def close(self) -> None:
        """End the way to it. May be called again."""
        await self._channel.close()

    async def _call(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        self._number += 1
        number = self._number
        try:
            answer = await self._channel.exchange(number, rpc.request(number, method, params), seconds)
        except ServerSlow:
            await self._channel.notify(
                rpc.notification("notifications/cancelled", {"requestId": number, "reason": "out of time"})
            )
            raise
        if answer.result is None:
            raise ServerFailed(f"{method}: {answer.message or 'an error without words'} ({answer.code})")
        return answer.result


def hear(request: rpc.Request, changed: Callable[[], None]) -> bytes | None:
    """What is answered to a message that a server sends of its own accord: pings are; it gets no roots, no sampling and
    no elicitation, for a tool has no business with the model or with people."""
    if request.method == "notifications/tools/list_changed":
        changed()
    if request.id is None:
        return None
    if request.method == "ping":
        return rpc.result(request.id, {})
    return rpc.error(request.id, rpc.METHOD_NOT_FOUND, "this client offers nothing but to call tools")


def _definitions(listed: list[Any]) -> list[tuple[Definition, int]]:
    return [_definition(item) for item in listed]


def _definition(item: Any) -> tuple[Definition, int]:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise ServerFailed("it lists an operation without a name")
    name = item["name"]
    schema = item.get("inputSchema", {"type": "object"})
    if not isinstance(schema, dict):
        raise ServerFailed(f"the inputSchema of {escape_text(name, lines=True)[:100]} is no object")
    defined = {key: item[key] for key in _DEFINED if key in item}
    try:
        octets = canonical_json(defined)
        cleaned = escape_json(defined)
    except InvalidInput as error:
        raise ServerFailed(f"the definition of {escape_text(name, lines=True)[:100]} is unusable: {error}") from error
    annotations = cleaned.get("annotations")
    definition = Definition(
        name=name,
        # A model reads this: nothing in it may be invisible to people.
        description=str(cleaned.get("description") or "")[:MAX_DESCRIPTION],
        input_schema=schema,
        title=cleaned["title"][:256] if isinstance(cleaned.get("title"), str) else None,
        annotations=annotations if isinstance(annotations, dict) else None,
        digest=digest_of_bytes(octets),
    )
    return definition, len(octets)


def _word(value: Any) -> str:
    return plain_line(value)[:100] if isinstance(value, str) and value else "unknown"
