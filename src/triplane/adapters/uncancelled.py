"""Steps that are never abandoned half-way: cancellation waits for their end."""

import asyncio
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def uncancelled(work: asyncio.Task[T]) -> T:
    """Its result; cancellation is delivered after it has ended, however often it is asked for."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise
