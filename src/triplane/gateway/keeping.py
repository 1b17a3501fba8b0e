"""The content store's upkeep on demand: list, check, collect, scrub. For the operator and admins.

Each answer is a stream of JSON lines, for the work may take hours: ``{"working": true}`` while nothing is to be said,
at the end ``{"result": …}``, or ``{"error": …}`` in the form of any other refusal. A caller that hangs up ends it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from triplane.controllers.blobcheck import check_blobs
from triplane.domain.absence import Absent
from triplane.errors import TriplaneError
from triplane.gateway.answers import error_answer
from triplane.gateway.auth import CallerDep, require_admin
from triplane.gateway.state import Gateway, GatewayDep

router = APIRouter(prefix="/v1/content")
_LINES: Final = "application/x-ndjson"
_SIGN_SECONDS: Final = 5.0
"""Between two signs of life."""


@router.get("/blobs")
async def list_blobs(gateway: GatewayDep, caller: CallerDep) -> Response:
    """``{digest, size, storedAt}`` of every blob, by digest; the result is ``{blobs, octets}``."""
    await require_admin(gateway, caller)
    return StreamingResponse(_signed(gateway, _listed(gateway)), media_type=_LINES)


@router.get("/check")
async def check(gateway: GatewayDep, caller: CallerDep) -> Response:
    """``{digest, absence, seq, message}`` of every blob that the log names and that is not there; the result is
    ``{entries, blobs, there}``."""
    await require_admin(gateway, caller)
    return StreamingResponse(_signed(gateway, _checked(gateway)), media_type=_LINES)


@router.post("/collect")
async def collect(
    gateway: GatewayDep, caller: CallerDep, dry: Annotated[bool, Query(alias="dryRun")] = False
) -> Response:
    """Remove what nothing names, or say what would go. While another collector is at work the one line is the
    ``error`` of a 409; the status, sent before, is 200."""
    await require_admin(gateway, caller)
    return StreamingResponse(_signed(gateway, _result(gateway.keeper.collect(dry=dry))), media_type=_LINES)


@router.post("/scrub")
async def scrub(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read everything again, at the rate of the settings."""
    await require_admin(gateway, caller)
    return StreamingResponse(_signed(gateway, _result(gateway.keeper.scrub())), media_type=_LINES)


async def _listed(gateway: Gateway) -> AsyncIterator[dict[str, Any]]:
    blobs = octets = 0
    async for blob in gateway.backends.content.stored():
        blobs, octets = blobs + 1, octets + blob.size
        yield {"digest": blob.digest, "size": blob.size, "storedAt": blob.stored_at.isoformat()}
    yield {"result": {"blobs": blobs, "octets": octets}}


async def _checked(gateway: Gateway) -> AsyncIterator[dict[str, Any]]:
    async for found in check_blobs(gateway.backends.content, gateway.backends.log, gateway.backends.sessions):
        if isinstance(found, Absent):
            yield {"digest": found.digest, "absence": found.absence, "seq": found.seq, "message": found.message}
        else:
            yield {"result": asdict(found)}


async def _result(work: Awaitable[Any]) -> AsyncIterator[dict[str, Any]]:
    yield {"result": asdict(await work)}


async def _signed(gateway: Gateway, lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The lines, and signs of life between them; ends early when the process stops."""
    stopping = asyncio.ensure_future(gateway.stopping.wait())
    following: asyncio.Future[dict[str, Any]] | None = None
    try:
        async with aclosing(lines) as source:  # type: ignore[type-var]
            while True:
                following = following or asyncio.ensure_future(anext(source))
                both: set[asyncio.Future[Any]] = {stopping, following}
                await asyncio.wait(both, timeout=_SIGN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return
                if not following.done():
                    yield b'{"working":true}\n'
                    continue
                line = following.result()
                following = None
                yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except StopAsyncIteration:
        return
    except TriplaneError as error:
        yield bytes(error_answer(error).body) + b"\n"
    finally:
        stopping.cancel()
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait({following})
