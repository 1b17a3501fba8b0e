"""How sessions look in the database: the statements that read them, and rows turned into the values of the
domain.

A session is read with its runs and records in one statement, so in one snapshot, together with the server's
clock and the revocation revision at which it was true.
"""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

from triplane.domain.launch import StoredPermit
from triplane.domain.session import (
    Offer,
    Outcome,
    RunOutput,
    RunResult,
    RunState,
    RunView,
    SessionView,
    Usage,
)

OFFER_COLUMNS: Final = (
    "session_uid",
    "namespace",
    "name",
    "task_uid",
    "graph_uid",
    "agent_uid",
    "agent_name",
    "role",
    "snapshot_digest",
    "work_order",
)

_TIME = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

RUN_JSON: Final = f"""jsonb_build_object(
    'run', r.run, 'state', r.state, 'permit_counter', r.permit_counter, 'runner', r.runner, 'instance',
    r.instance, 'counter', r.counter, 'records', r.records, 'facts', r.facts, 'result', r.result,
    'end_reason', r.end_reason, 'run_inputs', r.run_inputs, 'claimed_at', {_TIME.format("r.claimed_at")},
    'started_at', {_TIME.format("r.started_at")}, 'ended_at', {_TIME.format("r.ended_at")}, 'permitted_at',
    {_TIME.format("r.permitted_at")}, 'permit_seconds', r.permit_seconds, 'revocation_revision',
    r.revocation_revision)"""

SESSION: Final = f"""
SELECT s.uid, s.namespace, s.name, s.task_uid, s.graph_uid, s.agent_uid, s.agent_name, s.role,
s.snapshot_digest, s.work_order, s.revoked, s.closed, coalesce((SELECT jsonb_agg({RUN_JSON} ORDER BY r.run)
FROM sessions.runs r WHERE r.session_uid = s.uid), '[]'), coalesce((SELECT jsonb_agg(jsonb_build_array(c.run,
c.sequence, c.digest) ORDER BY c.run, c.sequence) FROM sessions.records c WHERE c.session_uid = s.uid), '[]'),
(SELECT revision FROM sessions.revocation), clock_timestamp() FROM sessions.sessions s
"""
"""One row per session; a WHERE clause follows."""
LOCKED_RUN: Final = f"SELECT {RUN_JSON} FROM sessions.runs r WHERE session_uid = %s AND run = %s FOR UPDATE"


class SessionRow:
    """What one row of ``SESSION`` says."""

    def __init__(self, row: tuple[Any, ...]) -> None:
        *offer, revoked, closed, runs, records, self.revision, self.now = row
        self.permits: Mapping[int, StoredPermit] = {run["run"]: _permit(run) for run in runs}
        self.view = SessionView(
            offer=Offer(*offer),
            runs=tuple(self._run(run) for run in runs),
            revoked=revoked,
            closed=closed,
            record_digests=tuple((run, sequence, digest) for run, sequence, digest in records),
        )

    def _run(self, run: Mapping[str, Any]) -> RunView:
        usable = self.permits[run["run"]].usable(self.revision, self.now)
        return run_view(run, permit_expired=run["state"] == RunState.PERMITTED and not usable)


def run_view(run: Mapping[str, Any], *, permit_expired: bool = False) -> RunView:
    """A ``RUN_JSON`` object as a value."""
    known = {field.name: run[field.name] for field in fields(RunView) if field.name in run}
    known["state"] = RunState(run["state"])
    known["result"] = None if run["result"] is None else result_from_json(run["result"])
    return RunView(**known, permit_expired=permit_expired)


def result_to_json(result: RunResult) -> Mapping[str, Any]:
    """The form a result is stored in."""
    return asdict(result)


def result_from_json(stored: Mapping[str, Any]) -> RunResult:
    """The inverse of ``result_to_json``."""
    return RunResult(
        **{
            **stored,
            "outcome": Outcome(stored["outcome"]),
            "outputs": tuple(RunOutput(**output) for output in stored["outputs"]),
            "usage": Usage(**stored["usage"]),
        }
    )


def _permit(run: Mapping[str, Any]) -> StoredPermit:
    return StoredPermit(
        counter=run["permit_counter"],
        revocation_revision=run["revocation_revision"],
        since=datetime.fromisoformat(run["permitted_at"]),
        seconds=run["permit_seconds"],
    )
