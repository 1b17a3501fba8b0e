"""Why a run is refused or fails before the gateway has had its say: expected endings, told as one exception."""

from triplane.domain.session import Outcome
from triplane.errors import TriplaneError


class RunEndsEarly(TriplaneError):
    """The run ends here with this outcome and reason; the message goes into the session's status."""

    def __init__(self, outcome: Outcome, reason: str, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.reason = reason
        self.exit_code = exit_code


def refused(reason: str, message: str) -> RunEndsEarly:
    """The host refuses to run it: nothing was executed."""
    return RunEndsEarly(Outcome.REFUSED, reason, message)


def failed(reason: str, message: str, *, exit_code: int | None = None) -> RunEndsEarly:
    """It ran and failed."""
    return RunEndsEarly(Outcome.FAILED, reason, message, exit_code=exit_code)
