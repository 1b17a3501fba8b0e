"""How fast to read everything again: no faster than the rate, whatever the disk could do."""

from dataclasses import dataclass

from triplane.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Pace:
    """Octets per second, in the mean from the beginning. Raises ``InvalidInput`` for a rate that never ends."""

    octets_per_second: float

    def __post_init__(self) -> None:
        if not self.octets_per_second > 0:
            raise InvalidInput("a scrub needs a rate above 0 octets per second; give one")

    def pause(self, octets: int, elapsed: float) -> float:
        """Seconds to wait after so many octets in so many seconds; 0 when it is slow enough by itself."""
        return max(0.0, octets / self.octets_per_second - elapsed)


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one scrub found: every bad blob, not the first."""

    checked: int
    octets: int
    bad: tuple[str, ...]
    """Moved aside, now or unnoticed before, and reported as ``blob.quarantined``."""
    unreadable: tuple[str, ...]
    """The backend failed on them: neither right nor wrong."""
    next: str
    """Go on after this digest; empty when the end was reached."""

    def and_then(self, other: "Scrubbed") -> "Scrubbed":
        """What this one and then the other found."""
        return Scrubbed(
            self.checked + other.checked,
            self.octets + other.octets,
            self.bad + other.bad,
            self.unreadable + other.unreadable,
            other.next,
        )

    @property
    def ok(self) -> bool:
        """Everything that was there is what was stored."""
        return not self.bad and not self.unreadable
