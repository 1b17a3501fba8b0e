"""``GET /v1/log/stream``: entries in order, from any number on, for ever; Server-Sent Events or NDJSON.

A stream holds a position and at most one page. Whoever reads slowly is waited for by TCP alone, and let go when it
takes nothing for too long; it comes back with the number it has seen last and misses nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import Annotated, Any, Final

import orjson
import structlog
from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from triplane.audit.model import EventFilter, Recorded
from triplane.errors import RolledBack, TriplaneError
from triplane.gateway.answers import error_answer, malformed
from triplane.gateway.auth import CallerDep, authenticate, require_person
from triplane.gateway.log import After, Where, entry_document, log_access, only_with
from triplane.gateway.state import Gateway, GatewayDep

_log = structlog.get_logger()
router = APIRouter(prefix="/v1/log")

PAGE: Final = 64
"""Entries read from the store at a time: at most 64 × 64 KiB."""
HEARTBEAT_SECONDS = 15.0
"""Silence after which something is sent, so that both ends notice when the other is gone."""
SEND_SECONDS = 30.0
"""How long a reader may take nothing."""
ALLOWED_SECONDS = 60.0
"""How often the caller's right is looked at again."""
EVENTS: Final = "text/event-stream"


@router.get("/stream", dependencies=[Depends(only_with("after"))])
async def stream(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    where: Where,
    after: After = -1,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Matching entries behind ``after`` (or ``Last-Event-ID``, which a reconnecting browser sends), as they come. What
    cannot be served is refused before the answer begins; what ends it later, such as a store that is away, is told as
    its last event or line."""
    person = await require_person(gateway, caller, log_access(where))
    if last_event_id:
        if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 16:
            raise malformed(f"Last-Event-ID: {last_event_id[:40]!r} is no sequence number")
        after = int(last_event_id)
    await _refuse_archived(gateway, where, after, await _size(gateway, after))
    slot = gateway.streams.one_more(person.username)
    slot.__enter__()
    events = EVENTS in accept
    source = _chunks(request, gateway, where, after, events=events)
    return _Stream(source, slot, media_type=EVENTS if events else "application/x-ndjson")


class _Stream(StreamingResponse):
    """Ends with its reader, or with a reader's patience."""

    def __init__(self, source: AsyncIterator[bytes], slot: AbstractContextManager[None], media_type: str) -> None:
        super().__init__(
            source, media_type=media_type, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._source = source
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._source):  # type: ignore[type-var]
                await super().__call__(scope, receive, send)
        finally:
            self._slot.__exit__(None, None, None)

    async def stream_response(self, send: Send) -> None:
        async def patiently(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            await super().stream_response(patiently)
        except TimeoutError:
            _log.info("a reader of the log took nothing for too long and was let go", seconds=SEND_SECONDS)


async def _chunks(
    request: Request, gateway: Gateway, where: EventFilter, after: int, *, events: bool
) -> AsyncIterator[bytes]:
    stopping = asyncio.ensure_future(gateway.stopping.wait())
    allowed = gateway.clock.monotonic()
    if events:
        yield b"retry: 1000\n\n"
    try:
        async with gateway.tail.followed(gateway.backends.log):
            while not stopping.done():
                news = gateway.tail.news
                found, position = await _next(gateway, where, after)
                for recorded in found:
                    yield _event(recorded) if events else orjson.dumps(entry_document(recorded)) + b"\n"
                if position == after and not await _rung(news, stopping):
                    await _size(gateway, after)  # in the silence of a log that was rolled back
                    # An id without data: the reader resumes behind what did not match, and gets nothing.
                    yield b"id: %d\n\n" % after if events and after >= 0 else b":\n\n" if events else b"\n"
                after = position
                if gateway.clock.monotonic() - allowed > ALLOWED_SECONDS:
                    await require_person(gateway, await authenticate(request, gateway), log_access(where))
                    allowed = gateway.clock.monotonic()
    except TriplaneError as error:
        _log.info("a stream of the log ended", error=str(error))
        told = bytes(error_answer(error).body)
        yield b"event: error\ndata: %b\n\n" % told if events else told + b"\n"
    finally:
        stopping.cancel()


async def _next(gateway: Gateway, where: EventFilter, after: int) -> tuple[list[Recorded], int]:
    """Some of what matches behind ``after``, and up to where that was everything."""
    kept = gateway.tail.since(after)
    if kept is not None:
        return [recorded for recorded in kept[0] if where.matches(recorded)], kept[1]
    size = await _size(gateway, after)
    if size == after + 1:
        return [], after
    found = await gateway.backends.log.query(replace(where, before=size), after=after, limit=PAGE)
    await _refuse_archived(gateway, where, after, size)  # behind the reading: what was archived meanwhile is not in it
    return found, found[-1].seq if len(found) == PAGE else size - 1


async def _size(gateway: Gateway, after: int) -> int:
    """Of the log. Raises ``RolledBack`` when it does not reach to the reader."""
    log = gateway.backends.log
    size, _ = await log.head()
    if after >= size:
        raise RolledBack(log.origin, seen=after + 1, size=size)
    return size


async def _refuse_archived(gateway: Gateway, where: EventFilter, after: int, size: int) -> None:
    """Raises ``Archived`` when what comes next is not here. The history of a subject begins with what is here; a
    stream of it would hide from its reader that something is missing."""
    if size > after + 1:
        await gateway.backends.log.query(EventFilter(types=where.types, before=after + 2), after=after, limit=1)


async def _rung(news: asyncio.Event, stopping: "asyncio.Future[Any]") -> bool:
    """Wait for more; False after a time of silence."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(news.wait())
    try:
        await asyncio.wait({waiting, stopping}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done() or stopping.done()
    finally:
        waiting.cancel()


def _event(recorded: Recorded) -> bytes:
    """WHATWG HTML, "Server-sent events"; the JSON has no line break."""
    return b"id: %d\ndata: %b\n\n" % (recorded.seq, orjson.dumps(entry_document(recorded)))
