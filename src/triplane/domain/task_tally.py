"""What a Task has taken: runs, retries, time, tokens and cost, summed up over all its sessions.

Times are those of the store and of the log, so that looking again, even after a restart, says the same.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from triplane.domain.conditions import rfc3339
from triplane.domain.session import RunState, RunView
from triplane.domain.task_facts import TaskFacts
from triplane.domain.task_runs import governed


def tally(facts: TaskFacts) -> dict[str, Any]:
    """The fields of ``TaskStatus`` that count: ``runs``, ``retries``, ``startedAt``, ``completedAt``,
    ``durationSeconds``, ``tokens`` and ``costMinorUnits``."""
    runs = [(session.role, run) for session in facts.sessions if session.view for run in session.view.runs]
    results = [run.result for _, run in runs if run.result is not None]
    began = min((run.started_at for _, run in runs if run.started_at is not None), default=None)
    ended = facts.decisions.ended_at
    return {
        "runs": sum(1 for role, _ in runs if role == "producer"),
        "retries": _retries([(role, run) for role, run in runs if not _taken_back(run)]),
        "startedAt": _second(began),
        "completedAt": _second(ended),
        "durationSeconds": seconds_between(began, ended),
        "tokens": sum(result.usage.tokens for result in results),
        "costMinorUnits": sum(result.usage.cost_minor_units for result in results),
    }


def _taken_back(run: RunView) -> bool:
    """It was ended because its session had more than it may have: the next one is no second try."""
    return run.state is RunState.REVOKED and governed(run.end_reason)


def _retries(runs: list[tuple[str, RunView]]) -> int:
    """Each round takes one run of the producer and one of the reviewer; what goes beyond that was tried again."""
    each = Counter((role, run.run_inputs.get("round")) for role, run in runs)
    return sum(count - 1 for count in each.values())


def seconds_between(began: str | None, ended: str | None) -> int:
    """Whole seconds; 0 while one of them is not known, and never less."""
    if began is None or ended is None:
        return 0
    return max(0, int((_moment(ended) - _moment(began)).total_seconds()))


def _second(time: str | None) -> str | None:
    return None if time is None else rfc3339(_moment(time))


def _moment(time: str) -> datetime:
    return datetime.fromisoformat(time).astimezone(UTC)
