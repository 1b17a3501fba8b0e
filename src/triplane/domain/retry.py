"""When a run that did not succeed is followed by another, and when it is given up.

The agent's doing (it failed, took too long, gave a void verdict) counts against ``maxRetries``; what happened to it
(its runner was lost, its host refused or failed) has allowances of its own. All are counted per round and role, over
every session: a session opened anew because something was edited forgets nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from triplane.api.work import RetryPolicy
from triplane.domain.session import Outcome, RunState, RunView

MAX_LOST_RUNS: Final = 20
"""Runs in one round that may be lost with their runners before the Task fails: a machine may be rebooted often."""
MAX_REFUSED_RUNS: Final = 3
"""Runs in one round that hosts may refuse before the Task fails: most refusals (a program that is not approved, an
input that cannot be prepared) are the same on every try, and somebody should learn of them soon."""
MAX_STOPPED_RUNS: Final = 20
"""Runs in one round that may end because their budget was spent before the Task fails: each next one had more."""
STOPPED_REASONS: Final = frozenset({"BudgetExceeded", "AuthorityExpired"})
"""Reasons of runs that were ended because what they were granted was used up."""
JITTER: Final = 0.2
"""The part of a wait that is taken off at random, so that what failed together does not return together."""
HOST_REASONS: Final = frozenset({"HostFailed", "SandboxFailed", "ReportRefused"})
"""Reasons of failed runs that are the host's doing."""


class Failure(StrEnum):
    """Whose doing it is that a run did not succeed."""

    AGENT = "agent"
    LOST = "lost"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that did not succeed, and what is said of it."""

    session: str
    session_uid: str
    run: RunView
    failure: Failure
    reason: str
    message: str


def failure_of(run: RunView, *, void: bool) -> Failure | None:
    """Whose doing; None for a run that is not over, or succeeded. ``void``: its verdict decides nothing."""
    if run.state is RunState.LOST:
        return Failure.LOST
    if run.state is not RunState.FINISHED or run.result is None:
        return None
    if run.result.outcome is Outcome.REFUSED or (
        run.result.outcome is not Outcome.SUCCEEDED and run.result.reason in HOST_REASONS
    ):
        return Failure.REFUSED
    if run.result.outcome is Outcome.SUCCEEDED and not void:
        return None
    return Failure.STOPPED if run.result.reason in STOPPED_REASONS else Failure.AGENT


def allowance(failure: Failure, max_retries: int) -> int:
    """How many failures of that sort a round survives."""
    return {
        Failure.AGENT: max_retries,
        Failure.LOST: MAX_LOST_RUNS,
        Failure.REFUSED: MAX_REFUSED_RUNS,
        Failure.STOPPED: MAX_STOPPED_RUNS,
    }[failure]


def latest(failed: Sequence[FailedRun]) -> FailedRun | None:
    """The one that ended last; by its end, then by the order given."""
    return max(enumerate(failed), key=lambda item: (item[1].run.ended_at or "", item[0]), default=(0, None))[1]


def delay(policy: RetryPolicy, failures: int, last: FailedRun) -> float:
    """Seconds from the end of the last failed run to the next one; the same each time it is asked."""
    exponent = min(max(failures, 1) - 1, 32)
    whole = min(float(policy.max_backoff_seconds), policy.backoff_seconds * 2.0**exponent)
    draw = hashlib.sha256(f"{last.session_uid}/{last.run.run}".encode()).digest()
    return whole * (1 - JITTER * int.from_bytes(draw[:4], "big") / 2**32)


def due(policy: RetryPolicy, failures: int, last: FailedRun) -> datetime | None:
    """When the next run may begin, by the store's clock; None: at once."""
    if last.run.ended_at is None:
        return None
    ended = datetime.fromisoformat(last.run.ended_at).astimezone(UTC)
    return ended + timedelta(seconds=delay(policy, failures, last))
