"""Turns at what takes connections of the store from others: so many at a time in all, and so many of one person."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from typing import Final

from triplane.errors import Unavailable
from triplane.gateway.answers import Refusal

WALKS: Final = 4
WALKS_EACH: Final = 1
"""A walk takes a connection for as long as its reader reads."""
LOOKS: Final = 4
LOOKS_EACH: Final = 16
"""Look-ups of an artifact's lineage end by themselves: one person's may wait for each other."""
TURN_SECONDS: Final = 5.0
"""How long one waits for a turn."""


class Turns:
    """Who has one, or waits for one."""

    def __init__(self, most: int, each: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._each = each
        self._of: Counter[str] = Counter()

    async def take(self, name: str) -> ExitStack:
        """A turn, until what is returned is closed. Raises 429 ``TooManyWalks`` when this person has as many as one
        may have, ``Unavailable`` when others have all for too long."""
        if self._of[name] >= self._each:
            raise Refusal(
                429, "TooManyWalks", f"{name} reads {self._each} lineages at once, no more are walked: wait for an end"
            )
        with ExitStack() as held:
            self._of[name] += 1
            held.callback(self._leave, name)
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await self._places.acquire()
            except TimeoutError:
                raise Unavailable("this gateway walks as many lineages as it can; ask again in some seconds") from None
            held.callback(self._places.release)
            return held.pop_all()

    def _leave(self, name: str) -> None:
        self._of[name] -= 1
        self._of += Counter()  # forget who has none
