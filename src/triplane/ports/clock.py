"""Time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time as the adapters see it; decisions get ``now`` passed in."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time."""
        ...

    def monotonic(self) -> float:
        """Seconds from some start; never goes back."""
        ...
