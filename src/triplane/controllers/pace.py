"""Roll-ups are coalesced: whatever changes below, an object that sums others up is written about once a second."""

from triplane.ports import Clock

SECONDS = 1.0


class Pace:
    """Remembers when each object was last summed up; in memory, for it only saves work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def left(self, uid: str, seconds: float = SECONDS) -> float:
        """Seconds until the object's turn; 0 when it is, and for one that was never noted."""
        last = self._last.get(uid)
        return 0.0 if last is None else max(0.0, seconds - (self._clock.monotonic() - last))

    def note(self, uid: str) -> None:
        """It was summed up just now."""
        self._last[uid] = self._clock.monotonic()

    def forget(self, uid: str) -> None:
        """The object is gone, or over."""
        self._last.pop(uid, None)
