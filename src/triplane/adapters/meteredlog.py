"""The event log, with its appends timed."""

import time
from collections.abc import Callable, Sequence

from triplane.audit.model import EventBody, Receipt
from triplane.ports import EventLog
from triplane.ports.forwardedlog import ForwardedLog


class MeteredLog(ForwardedLog):
    """``triplane.ports.EventLog``: hands everything on, and tells ``appended`` the seconds of each append."""

    def __init__(self, inner: EventLog, appended: Callable[[float], None]) -> None:
        super().__init__(inner)
        self._appended = appended
        self.waiting = 0
        """Entries whose append has not been answered yet: those with the server, and those that wait their turn."""

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``. A failed one took time, too."""
        began = time.perf_counter()
        self.waiting += len(bodies)
        try:
            return await self._inner.append(bodies)
        finally:
            self.waiting -= len(bodies)
            self._appended(time.perf_counter() - began)
