"""How concurrent work ends: by itself or because it is told to, and with which error."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from triplane.errors import TriplaneError


async def ends_before(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Run ``work`` unless ``stop`` comes first; True if it ended by itself."""
    doing = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        return False
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


def leaf(group: BaseExceptionGroup[TriplaneError]) -> TriplaneError:
    """The first exception in a tree of groups."""
    first = group.exceptions[0]
    return leaf(first) if isinstance(first, BaseExceptionGroup) else first
