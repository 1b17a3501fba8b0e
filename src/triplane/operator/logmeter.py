"""How far the operator is behind the log: entries it must act on and has not seen."""

from datetime import datetime

from triplane.audit.model import EventFilter
from triplane.operator.consumer import RUN_TYPES
from triplane.ports import Clock, EventLog

COUNTED = 1000
"""More entries than these are reported as this many."""


class LogMeter:
    """Looks at the log beside the consumer. Nothing new in the log costs one read of its head."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._passed = -1
        """Up to here nothing is left to act on."""
        self.entries = 0
        """Entries not acted on yet."""
        self.seconds = 0.0
        """Age of the oldest of them, by the wall clock of who appended it."""

    async def look(self, seen: int) -> None:
        """Measure; ``seen`` is the consumer's position. Raises what the log raises."""
        size, _ = await self._log.head()
        after = max(self._passed, seen)
        left = []
        if size - 1 > after:
            left = await self._log.query(EventFilter(types=RUN_TYPES), after=after, limit=COUNTED)
        self.entries = len(left)
        if left:
            try:
                appended = datetime.fromisoformat(left[0].entry["time"])
            except ValueError:  # the verification reports it; what is counted here is still to be acted on
                appended = self._clock.now()
            self.seconds = max(0.0, (self._clock.now() - appended).total_seconds())
        else:
            self._passed, self.seconds = max(after, size - 1), 0.0
