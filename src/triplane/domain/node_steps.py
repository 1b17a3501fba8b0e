"""The steps of a Node as their Tasks' statuses tell them, and the rows of ``status.steps``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from triplane.api.meta import TERMINAL, State
from triplane.domain.conditions import condition

MAX_STEPS_OCTETS = 56 * 1024
"""Of ``status.steps``; with the rest a status stays under 64 KiB (design §4)."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step as its Task's status tells it."""

    name: str
    task: str
    state: State
    reason: str
    message: str = ""
    stalled: bool = False
    waiting_reason: str | None = None
    retries: int = 0
    duration_seconds: int = 0
    tokens: int = 0
    cost_minor_units: int = 0
    started_at: str | None = None
    completed_at: str | None = None

    @classmethod
    def of(cls, name: str, task: str, status: Mapping[str, Any] | None) -> "StepFacts":
        """From the status of the step's Task, which may not have been looked at yet."""
        found = status or {}
        told = condition(found, "Succeeded") or {}
        stalled = condition(found, "Stalled") or {}
        return cls(
            name=name,
            task=task,
            state=State(found.get("state") or State.PENDING),
            reason=told.get("reason", "Pending"),
            message=told.get("message", ""),
            stalled=stalled.get("status") == "True",
            waiting_reason=found.get("waitingReason"),
            retries=found.get("retries", 0),
            duration_seconds=found.get("durationSeconds", 0),
            tokens=found.get("tokens", 0),
            cost_minor_units=found.get("costMinorUnits", 0),
            started_at=found.get("startedAt"),
            completed_at=found.get("completedAt"),
        )

    @classmethod
    def never(cls, name: str, task: str, reason: str = "Pending", message: str = "") -> "StepFacts":
        """A step whose Task is not made: the Node was cut short."""
        return cls(name, task, State.CANCELLED if message else State.PENDING, reason, message)

    @classmethod
    def deleted(cls, name: str, task: str, *, state: State) -> "StepFacts":
        """A step whose Task ended and was deleted since: its evidence stays, and the work is not done twice."""
        reason = "Accepted" if state is State.COMPLETED else "TaskFailed"
        message = f"Task {task} is over and was deleted since; `triplane lineage` still answers for it"
        return cls(name, task, state, reason, message)

    def row(self) -> dict[str, Any]:
        """Its entry in ``status.steps``; what says nothing is left out."""
        quiet = self.state in (State.COMPLETED, State.PENDING)
        row = {
            "name": self.name,
            "task": self.task,
            "state": self.state.value,
            "waitingReason": self.waiting_reason if self.state not in TERMINAL else None,
            "retries": self.retries,
            "durationSeconds": self.duration_seconds,
            "tokens": self.tokens,
            "costMinorUnits": self.cost_minor_units,
            "reason": None if quiet else self.reason[:64],
        }
        return {key: value for key, value in row.items() if value}


def fit(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, less what their Tasks tell as well when all of it would be too large."""
    for field in ("reason", "durationSeconds", "costMinorUnits", "tokens"):
        if len(orjson.dumps(rows)) <= MAX_STEPS_OCTETS:
            break
        rows = [{key: value for key, value in row.items() if key != field} for row in rows]
    return rows
