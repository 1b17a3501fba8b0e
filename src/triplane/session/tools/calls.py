"""One call of a tool on its way, and whom a tool host speaks with about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from triplane.domain.toolcall import CallStatus, Leave, Refusal, Rule
from triplane.session.tools.results import text_result


class Teller(Protocol):
    """The gateway, as far as calls of tools go (``session.client.RunGateway``)."""

    async def ask_leave(self, call: Mapping[str, Any]) -> bool | None:
        """Wait for a person: True approved, False rejected, None nobody answered in time. Raises ``InvalidInput``
        where nobody could tell what they give leave to."""
        ...

    async def begin_call(self, call: Mapping[str, Any]) -> None:
        """Log that a call is about to be made."""
        ...

    async def end_call(self, call: Mapping[str, Any]) -> None:
        """Log what came of a call."""
        ...


class Purse(Protocol):
    """The run's budget (``session.budget.Meter``)."""

    def left_of_cost(self) -> int | None: ...

    def charge(self, cost_minor_units: int) -> None: ...


@dataclass(slots=True)
class Call:
    """One call on its way."""

    told: Mapping[str, Any]
    """How the gateway is told of it."""
    made: bool = False
    """It was paid for and passed on: from here on it may have had an effect."""
    leave: Leave = Leave.NOT_REQUIRED


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a call."""

    status: CallStatus
    result: Mapping[str, Any]
    leave: Leave = Leave.NOT_REQUIRED
    refusal: Refusal | None = None


def broken_off(call: Call) -> Ended:
    """The run ends while the call is under way."""
    if not call.made:
        return refused(Refusal(Rule.OVER, "the run ended before the call was made", "calls of a run", "nobody"))
    text = "the run ended before the tool answered; whether it took effect is not known"
    return Ended(CallStatus.FAILED, text_result(text, failed=True), call.leave)


def refused(refusal: Refusal, leave: Leave = Leave.NOT_ASKED) -> Ended:
    """It never reached the tool; the model is told why."""
    return Ended(CallStatus.REFUSED, text_result(refusal.text(), failed=True), leave, refusal)
