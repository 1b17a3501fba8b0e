"""Simulated time: it moves only when the world says so."""

from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class SimulatedClock:
    """``triplane.ports.Clock``; ``advance`` is the only thing that moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self.seconds += seconds
