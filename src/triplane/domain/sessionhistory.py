"""Which sessions there were, what they did and what they cost: told from the log alone, so that nothing is forgotten
when objects are deleted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HISTORY_TYPES: Final = frozenset({"session.offered", "run.claimed", "run.finished", "run.lost", "run.revoked"})


@dataclass
class SessionHistory:
    """One session. Times are RFC 3339, those of the log's entries."""

    uid: str
    namespace: str
    name: str
    agent_uid: str
    agent: str
    role: str
    task_uid: str
    graph_uid: str
    offered_at: str
    runs: int = 0
    last_at: str | None = None
    """The last entry about one of its runs."""
    last_seq: int = -1
    outcome: str | None = None
    """Of the last run that ended: its outcome, ``lost`` or ``revoked``; None while the first is at work."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_minor_units: int = 0
    live: set[int] = field(default_factory=set)
    """Runs that were claimed and have not ended."""

    def wire(self) -> dict[str, Any]:
        """As JSON (docs/reference/gateway-api.md, "Sessions of an agent")."""
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "name": self.name,
            "agent": {"name": self.agent, "uid": self.agent_uid},
            "role": self.role,
            "taskUid": self.task_uid,
            "graphUid": self.graph_uid,
            "runs": self.runs,
            "running": bool(self.live),
            "outcome": self.outcome,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "tokens": self.input_tokens + self.output_tokens,
            "costMinorUnits": self.cost_minor_units,
            "offeredAt": self.offered_at,
            "lastAt": self.last_at,
        }


class Histories:
    """Folds entries, in log order, into the sessions they tell of; only those of the wanted agent and Task."""

    def __init__(self, *, agent: str | None = None, task_uids: frozenset[str] | None = None) -> None:
        self._agent = agent
        self._task_uids = task_uids
        self._found: dict[str, SessionHistory] = {}

    def add(self, entries: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """``(sequence, entry)`` pairs of the types in ``HISTORY_TYPES``."""
        for seq, entry in entries:
            if entry["type"] == "session.offered":
                self._offered(seq, entry)
            elif (session := self._found.get(entry["subject"]["uid"])) is not None:
                _told(session, seq, entry)

    def _offered(self, seq: int, entry: Mapping[str, Any]) -> None:
        data, subject = entry["data"], entry["subject"]
        if self._agent not in (None, data["agentName"], data["agentUid"]):
            return
        if self._task_uids is not None and data["taskUid"] not in self._task_uids:
            return
        self._found[subject["uid"]] = SessionHistory(
            uid=subject["uid"],
            namespace=subject["namespace"],
            name=subject["name"],
            agent_uid=data["agentUid"],
            agent=data["agentName"],
            role=str(data["role"]).capitalize(),
            task_uid=data["taskUid"],
            graph_uid=str(entry["stream"]).removeprefix("graph/"),
            offered_at=entry["time"],
            last_seq=seq,
        )

    def newest_first(self) -> list[SessionHistory]:
        """By their last sign of life: a session that is taken up again is newer than one that was made after it."""
        return sorted(self._found.values(), key=lambda session: -session.last_seq)


def _told(session: SessionHistory, seq: int, entry: Mapping[str, Any]) -> None:
    data = entry["data"]
    session.last_at, session.last_seq = entry["time"], seq
    run = data["run"]
    if entry["type"] == "run.claimed":
        session.runs = max(session.runs, run)
        session.live.add(run)
        return
    session.live.discard(run)
    if entry["type"] == "run.finished":
        session.outcome = data["outcome"]
        session.input_tokens += data["inputTokens"]
        session.output_tokens += data["outputTokens"]
        session.cost_minor_units += data["costMinorUnits"]
    else:
        session.outcome = entry["type"].removeprefix("run.")
