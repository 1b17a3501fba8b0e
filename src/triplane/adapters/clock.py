"""The machine's clocks: wall time for records people read, monotonic time for everything that is measured."""

import time
from datetime import UTC, datetime


class SystemClock:
    """``triplane.ports.Clock`` of this machine."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time; it may jump."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from some start; never goes back."""
        return time.monotonic()
