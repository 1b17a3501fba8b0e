"""The MCP endpoint a harness talks to: Streamable HTTP, without sessions, on the door the launcher opened for it.

Standard followed: MCP 2025-11-25, "Lifecycle", "Transports" and "Tools". A call is answered as JSON; one that takes
long, to a client that accepts it, as a stream of events that is kept open.
"""

import asyncio
import contextlib
import hmac
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from triplane.errors import TriplaneError
from triplane.session.listeners import accept
from triplane.session.tools import rpc
from triplane.session.tools.host import MAX_ARGUMENTS, ToolHost
from triplane.session.tools.peer import PROTOCOL, UNDERSTOOD

PATH: Final = "/mcp"
_PATIENCE_SECONDS: Final = 5.0
"""A call that takes longer is answered as a stream, so that no client takes the silence for the end."""
_ALIVE_SECONDS: Final = 15.0
_AT_ONCE: Final = 64
"""Connections that are served at the same time; further ones are not accepted yet. One that hangs up during a call
counts until the call is over."""
_MAX_BODY: Final = 2 * MAX_ARGUMENTS
"""Octets of a request: what is larger holds arguments that no call may have, and is not worth parsing."""
_INSTRUCTIONS: Final = (
    "Tools of this run, served by its session host. Every call is checked and recorded. A refusal says which rule, "
    "which limit and who can change it; do not repeat a refused call unchanged."
)


class Endpoint:
    """Serves one run. ``word``: what the path must hold where others than the harness can reach the door."""

    def __init__(self, host: ToolHost, door: socket.socket, *, word: str | None = None) -> None:
        self._host = host
        self._door = door
        self._path = PATH if word is None else f"/{word}{PATH}"
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._accepting: tuple[asyncio.Task[None], socket.socket] | None = None
        self._taking: set[asyncio.Task[None]] = set()
        self._busy: set[object] = set()
        """Connections whose request is being answered, and those of them that are no more."""
        self._lost: set[object] = set()
        self._http = _Counted(self._answer, self._hung_up, access_log=None, max_line_size=8190, max_field_size=8190)

    def url(self, port: int) -> str:
        """What the harness is told."""
        return f"http://127.0.0.1:{port}{self._path}"

    async def start(self) -> None:
        """Answer from now on."""
        own = self._door.dup()
        self._accepting = asyncio.create_task(accept(own, self._slots, self._take), name="tools door"), own

    async def close(self) -> None:
        """Answer no more. May be called again."""
        if self._accepting is not None:
            accepting, own = self._accepting
            self._accepting = None
            accepting.cancel()
            await asyncio.gather(accepting, *self._taking, return_exceptions=True)
            own.close()
        self._door.close()
        await self._http.shutdown(timeout=0.1)

    def _take(self, connection: socket.socket) -> None:
        task = asyncio.create_task(self._taken(connection))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _taken(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._http, connection)
        except OSError:
            connection.close()
            self._slots.release()

    def _hung_up(self, connection: object) -> None:
        if connection in self._busy:
            self._lost.add(connection)
        else:
            self._slots.release()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self._busy.add(connection)
        try:
            return await self._answered(request)
        finally:
            self._busy.discard(connection)
            if connection in self._lost:
                self._lost.discard(connection)
                self._slots.release()

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        if not hmac.compare_digest(request.path.encode(), self._path.encode()):
            return _plain(404, f"there is only {PATH}")
        if "Origin" in request.headers:  # a browser's page (MCP, "Security Warning"); a harness is none
            return _plain(403, "requests of web pages are refused")
        if request.method != "POST":
            return _plain(405, "this endpoint takes POST alone: it keeps no session and begins no stream", Allow="POST")
        try:
            messages = rpc.read(await _body(request))
        except rpc.BadMessage as error:
            return _json(rpc.error(None, rpc.PARSE_ERROR, str(error)), 400)
        wanted = [each for each in messages if isinstance(each, rpc.Request) and each.id is not None]
        if not wanted:
            return web.Response(status=202)
        if len(messages) > 1:
            return _json(rpc.error(None, rpc.INVALID_REQUEST, "send one message at a time"), 400)
        return await self._dispatched(request, wanted[0])

    async def _dispatched(self, request: web.BaseRequest, asked: rpc.Request) -> web.StreamResponse:
        assert asked.id is not None
        match asked.method:
            case "initialize":
                version = asked.params.get("protocolVersion")
                return _json(rpc.result(asked.id, _about(version if version in UNDERSTOOD else PROTOCOL)))
            case "ping":
                return _json(rpc.result(asked.id, {}))
            case "tools/list":
                return _json(rpc.result(asked.id, {"tools": self._host.definitions()}))
            case "tools/call":
                return await self._called(request, asked)
            case _:
                text = f"{asked.method[:100]!r} is not served: there are initialize, ping, tools/list and tools/call"
                return _json(rpc.error(asked.id, rpc.METHOD_NOT_FOUND, text))

    async def _called(self, request: web.BaseRequest, asked: rpc.Request) -> web.StreamResponse:
        assert asked.id is not None
        name, arguments = asked.params.get("name"), asked.params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return _json(rpc.error(asked.id, rpc.INVALID_PARAMS, "params are {name: string, arguments: object}"))
        answer = asyncio.ensure_future(_outcome(asked.id, self._host.call(name, arguments)))
        await asyncio.wait({answer}, timeout=_PATIENCE_SECONDS)
        if answer.done() or "text/event-stream" not in request.headers.get("Accept", ""):
            return _json(await answer)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        while not answer.done():
            await asyncio.wait({answer}, timeout=_ALIVE_SECONDS)
            if not answer.done():
                await stream.write(b": still at work\n\n")
        await stream.write(b"event: message\ndata: " + await answer + b"\n\n")
        await stream.write_eof()
        return stream


class _Counted(web.Server):
    """Says when a connection is over."""

    def __init__(self, handler: Any, over: Callable[[object], None], **options: Any) -> None:
        super().__init__(handler, **options)
        self._over = over

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._over(handler)


async def _outcome(id_: rpc.RequestId, call: Awaitable[Mapping[str, Any]]) -> bytes:
    try:
        return rpc.result(id_, await call)
    except (TriplaneError, ValueError) as error:
        return rpc.error(id_, rpc.INTERNAL_ERROR, f"the session host could not make this call: {error}")


async def _body(request: web.BaseRequest) -> bytes:
    body = bytearray()
    with contextlib.suppress(ConnectionError):
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > _MAX_BODY:
                raise rpc.BadMessage(f"more than {_MAX_BODY} octets")
    return bytes(body)


def _about(version: str) -> dict[str, Any]:
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "triplane", "title": "Triplane session host", "version": "1"},
        "instructions": _INSTRUCTIONS,
    }


def _json(octets: bytes, status: int = 200) -> web.Response:
    return web.Response(body=octets, status=status, content_type="application/json")


def _plain(status: int, text: str, **headers: str) -> web.Response:
    body = json.dumps({"error": text}).encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
