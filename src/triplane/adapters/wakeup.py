"""A lossy wake-up: what every ``SessionStore.changes`` hands out (``triplane.ports.Wakeups``)."""

import asyncio


class Wakeup:
    """Rings between two waits are kept as one."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or the next one who does."""
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """True when it rang, False at the time-out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True
