"""What a run has used and what that comes to beneath a Task, Node or Graph: the rules behind ``SessionStore.spent``.

A host reports what a live run uses; its result says it once more at the end. The larger of the two counts, amount by
amount: neither a lost host nor a modest result makes what was used unspent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from triplane.domain.session import RunState, RunView, Spent, Usage
from triplane.errors import InvalidInput

MOST: Final = 2**53 - 1
"""The largest amount one run can report."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class RunCost:
    """What one run counts for."""

    usage: Usage
    microseconds: int
    first: bool
    """The first of its session, with which the session counts."""


def check_usage(usage: Usage) -> None:
    """Raise ``InvalidInput`` for amounts no run can have used."""
    for amount in (usage.input_tokens, usage.output_tokens, usage.cost_minor_units):
        if not 0 <= amount <= MOST:
            raise InvalidInput(f"a run reports amounts between 0 and {MOST}, not {amount}")


def larger(one: Usage, other: Usage) -> Usage:
    """Of each amount the larger, within what a run can use."""
    return Usage(
        input_tokens=min(MOST, max(one.input_tokens, other.input_tokens)),
        output_tokens=min(MOST, max(one.output_tokens, other.output_tokens)),
        cost_minor_units=min(MOST, max(one.cost_minor_units, other.cost_minor_units)),
    )


def cost_of(run: RunView, now: datetime) -> RunCost | None:
    """None while nobody has claimed it. A clock that was set back makes no time come back."""
    if run.state is RunState.PERMITTED:
        return None
    lasted = timedelta(0)
    if run.started_at is not None:
        ended = now if run.ended_at is None else datetime.fromisoformat(run.ended_at)
        lasted = max(lasted, ended - datetime.fromisoformat(run.started_at))
    return RunCost(run.usage, lasted // _MICROSECOND, run.run == 1)


def spent_by(costs: Iterable[RunCost]) -> Spent:
    """The sum."""
    tokens = cost = microseconds = sessions = 0
    for each in costs:
        tokens += each.usage.tokens
        cost += each.usage.cost_minor_units
        microseconds += each.microseconds
        sessions += each.first
    return spent_of(tokens, cost, microseconds, sessions)


def spent_of(tokens: int, cost_minor_units: int, microseconds: int, sessions: int) -> Spent:
    """Sums as ``Spent``: a second begun is a second."""
    return Spent(tokens, cost_minor_units, -(-microseconds // 1_000_000), sessions)
