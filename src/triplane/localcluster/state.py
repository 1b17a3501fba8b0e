"""``run/supervisor.json``: what the supervisor says about itself, for ``up`` and ``status`` to read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from triplane.localcluster.files import read_json, write_private


class Phase(StrEnum):
    """How far the supervisor is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """One supervisor's account of itself."""

    pid: int
    phase: Phase
    message: str = ""
    """Why it failed."""
    progress: tuple[str, ...] = ()
    """Everything it has done so far, one line each."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """How often it had to start a process again."""


def write_state(path: Path, state: SupervisorState) -> None:
    """Replace the file."""
    write_private(path, json.dumps(asdict(state), indent=2) + "\n")


def read_state(path: Path) -> SupervisorState | None:
    """The last account, perhaps of a supervisor that is gone; None when there is none."""
    value = read_json(path)
    try:
        return SupervisorState(
            pid=int(value["pid"]),
            phase=Phase(value["phase"]),
            message=str(value["message"]),
            progress=tuple(value["progress"]),
            restarts=dict(value["restarts"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
