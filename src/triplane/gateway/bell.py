"""One subscription to the session store's wake-ups per process, shared by all long polls.

A ring is only a hint: who waits also looks at its own interval, so a lost ring costs a moment, never a run.
"""

import asyncio
from typing import Final

import structlog

from triplane.errors import TriplaneError
from triplane.ports import SessionStore

_log = structlog.get_logger()
_SLICE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


class Bell:
    """Rings for every waiter when the store changed."""

    def __init__(self, sessions: SessionStore) -> None:
        self._sessions = sessions
        self._rung = asyncio.Event()

    def subscribe(self) -> asyncio.Event:
        """The event of the next ring. Take it *before* looking at the store, so that no ring is missed."""
        return self._rung

    def ring(self) -> None:
        """Wake everyone who waits now."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def listen(self) -> None:
        """Pass the store's wake-ups on, for ever; subscribes again after an outage."""
        while True:
            try:
                async with self._sessions.changes() as wakeups:
                    self.ring()
                    while True:
                        if await wakeups.wait(_SLICE_SECONDS):
                            self.ring()
            except TriplaneError as error:
                _log.warning("wake-ups interrupted", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)


async def wait_for_any(timeout_seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after the time."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
