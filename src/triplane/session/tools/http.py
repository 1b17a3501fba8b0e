"""A channel to an MCP server that is there already.

Standard followed: MCP 2025-11-25, "Transports", Streamable HTTP: one POST per message, answered with JSON or with a
stream of events. The host is found once, held against the egress authority, and reached at the addresses found then;
redirects are not followed, and no proxy of the machine is used.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from triplane.session.tools import rpc
from triplane.session.tools.peer import ServerFailed, ServerSlow, hear

_CONNECT_SECONDS: Final = 10.0
_ACCEPT: Final = "application/json, text/event-stream"
_PLAIN: Final = "identity"
"""Answers are taken as they come: a kilobyte that unpacks to gigabytes is read as that kilobyte, which is no JSON."""
_HEADER: Final = 512
"""Characters of a session id that is sent back."""

Admit = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses at which a host may be reached on a port; raises a ``TriplaneError`` where authority does not grant it."""


class HttpChannel:
    """One server; ``admit`` is asked before each new connection."""

    def __init__(self, url: str, token: str | None, admit: Admit, changed: Callable[[], None]) -> None:
        self._url = url
        self._changed = changed
        self._headers = {"Accept": _ACCEPT, "Accept-Encoding": _PLAIN, "Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Admitted(admit), use_dns_cache=False, limit=16),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )
        self._admit = admit

    def settled(self, version: str) -> None:
        """Sent with every further message (MCP, "Protocol Version Header")."""
        self._headers["MCP-Protocol-Version"] = version

    async def exchange(self, id_: int, octets: bytes, seconds: float) -> rpc.Response:
        """See ``Channel``."""
        try:
            async with asyncio.timeout(seconds):
                async for response in self._post(octets):
                    if response.id == id_:
                        return response
                raise ServerFailed("it closed the connection without an answer")
        except TimeoutError as error:
            raise ServerSlow(f"it did not answer within {seconds:g} s") from error

    async def notify(self, octets: bytes) -> None:
        """See ``Channel``."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                async for _ in self._post(octets):
                    pass
        except (ServerFailed, TimeoutError):
            return

    async def close(self) -> None:
        """End the session, if the server made one."""
        if not self._http.closed and "Mcp-Session-Id" in self._headers:
            try:
                async with (
                    asyncio.timeout(2),
                    self._http.delete(self._url, headers=self._headers, allow_redirects=False),
                ):
                    pass
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
        await self._http.close()

    async def _post(self, octets: bytes) -> AsyncIterator[rpc.Response]:
        """Send a message; the answers to it, as they come. Raises ``ServerFailed``."""
        await self._admit(*host_of(self._url))  # an address in the URL itself asks no resolver
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._http.post(
                self._url, data=octets, headers=self._headers, timeout=timeout, allow_redirects=False
            ) as answer:
                async for message in self._messages(answer):
                    if isinstance(message, rpc.Response):
                        yield message
                    elif (reply := hear(message, self._changed)) is not None:
                        await self.notify(reply)
        except (aiohttp.ClientError, OSError) as error:
            raise ServerFailed(f"it cannot be reached: {str(error)[:300] or type(error).__name__}") from error
        except rpc.BadMessage as error:
            raise ServerFailed(f"it broke the protocol: {error}") from error

    async def _messages(self, answer: aiohttp.ClientResponse) -> AsyncIterator[rpc.Request | rpc.Response]:
        if answer.status == 202:
            return
        kind = answer.content_type
        if answer.status != 200 and kind != "application/json":
            raise ServerFailed(f"it answered HTTP {answer.status}")
        if (session := answer.headers.get("Mcp-Session-Id")) and len(session) <= _HEADER:
            self._headers["Mcp-Session-Id"] = session
        if kind == "application/json":
            body = await _whole(answer.content)
            try:
                messages = rpc.read(body)
            except rpc.BadMessage:
                if answer.status != 200:
                    raise ServerFailed(f"it answered HTTP {answer.status}") from None
                raise
            for message in messages:
                yield message
        elif kind == "text/event-stream":
            async for data in _events(answer.content):
                for message in rpc.read(data):
                    yield message
        else:
            raise ServerFailed(f"it answered with {kind[:60]}, neither JSON nor a stream of events")


class _Admitted(AbstractResolver):
    """Resolves to the addresses that were admitted, and to no others."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._admit(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _whole(stream: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > rpc.MAX_MESSAGE:
            raise ServerFailed(f"it sent a message of more than {rpc.MAX_MESSAGE} octets")
    return bytes(body)


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of each event (HTML, "Server-sent events", 9.2.6), within limits."""
    buffer, data, total = b"", bytearray(), 0
    async for chunk in stream.iter_any():
        total += len(chunk)
        if total > 4 * rpc.MAX_MESSAGE or len(buffer) + len(chunk) + len(data) > 2 * rpc.MAX_MESSAGE:
            raise ServerFailed(f"it sent more than {rpc.MAX_MESSAGE} octets for one answer")
        buffer += chunk
        *whole, buffer = buffer.split(b"\n")
        for line in whole:
            text = line.rstrip(b"\r")
            if text.startswith(b"data:"):
                data += text[5:].removeprefix(b" ") + b"\n"
            elif not text and data:
                yield bytes(data)
                data = bytearray()


def host_of(url: str) -> tuple[str, int]:
    """Host and port of a server, as egress authority knows them."""
    place = urlsplit(url)
    return place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
