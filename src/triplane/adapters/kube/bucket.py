"""How fast we may write: a token bucket, as every Kubernetes client has one."""


class TokenBucket:
    """``burst`` tokens at first, ``rate`` more a second. Pure: the caller says what time it is."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take one token; returns the seconds to wait until it is there. Takers are served in order."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)
