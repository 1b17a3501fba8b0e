"""How sessions look in the database: the statements that read them, and rows turned into the values of the
domain.

A session is read with its runs (and its records, where asked for) in one statement, so in one snapshot, together
with the server's clock and the newest revocation among the sessions of its Task.
"""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, Final

from triplane.domain.launch import Bar, StoredPermit
from triplane.domain.session import (
    HeldBy,
    LiveRun,
    Offer,
    OpenSession,
    Outcome,
    RunOutput,
    RunResult,
    RunState,
    RunView,
    SessionView,
    Usage,
)

_TIME = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

RUN_JSON: Final = f"""jsonb_build_object(
    'run', r.run, 'state', r.state, 'permit_counter', r.permit_counter, 'runner', r.runner, 'instance',
    r.instance, 'counter', r.counter, 'records', r.records, 'facts', r.facts, 'result', r.result,
    'end_reason', r.end_reason, 'run_inputs', r.run_inputs, 'claimed_at', {_TIME.format("r.claimed_at")},
    'started_at', {_TIME.format("r.started_at")}, 'first_record_at', {_TIME.format("r.first_record_at")},
    'ended_at', {_TIME.format("r.ended_at")}, 'permitted_at', {_TIME.format("r.permitted_at")},
    'permit_seconds', r.permit_seconds, 'revocation_revision', r.revocation_revision, 'usage', jsonb_build_array(
    r.input_tokens, r.output_tokens, r.cost_minor_units), 'blob_octets', r.blob_octets)"""

_REVOKED = """(SELECT coalesce(max(o.revoked_revision), 0) FROM sessions.sessions o
    WHERE o.task_uid = s.task_uid)"""
_VOIDS = "FROM sessions.voids v WHERE v.namespace IN ('', s.namespace)"
BAR: Final = f"greatest({_REVOKED}, (SELECT max(v.revision) {_VOIDS}))"
"""The newest revocation or voiding that concerns session ``s`` (``triplane.domain.launch.Bar``)."""
_VOIDED = f"(SELECT jsonb_agg(jsonb_build_array(v.revision, v.reason)) {_VOIDS})"

_RECORDS = """(SELECT jsonb_agg(jsonb_build_array(c.run, c.sequence, c.digest) ORDER BY c.run, c.sequence)
    FROM sessions.records c WHERE c.session_uid = s.uid)"""

# Only what waits can be held, so nothing is counted for the others.
_HELD = """CASE WHEN s.waiting THEN (SELECT CASE
    WHEN (SELECT l.most FROM sessions.limits l WHERE l.agent_uid = s.agent_uid) <= (SELECT count(*)
        FROM sessions.runs v JOIN sessions.sessions p ON p.uid = v.session_uid
        WHERE v.state IN ('claimed', 'started') AND p.agent_uid = s.agent_uid) THEN 'agent_limit'
    WHEN (SELECT l.most FROM sessions.limits l WHERE l.agent_uid = '') <= (SELECT count(*)
        FROM sessions.runs v WHERE v.state IN ('claimed', 'started')) THEN 'global_limit' END) END"""


def _session(records: str) -> str:
    return f"""
SELECT s.uid, s.namespace, s.name, s.task_uid, s.graph_uid, s.agent_uid, s.agent_name, s.role,
s.snapshot_digest, s.work_order, s.node_uid, s.revoked, s.closed, coalesce((SELECT jsonb_agg({RUN_JSON} ORDER BY r.run)
FROM sessions.runs r WHERE r.session_uid = s.uid), '[]'), coalesce({records}, '[]'), s.wanted, s.waiting, {_HELD},
{_REVOKED}, coalesce({_VOIDED}, '[]'), clock_timestamp() FROM sessions.sessions s
"""


SESSION: Final = _session("NULL::jsonb")
"""One row per session, without its records; a WHERE clause follows."""
SESSION_WITH_RECORDS: Final = _session(_RECORDS)
LIVE: Final = """
SELECT s.uid, s.namespace, s.name, s.task_uid, s.graph_uid, s.agent_uid, r.run, r.counter, r.runner, r.instance
FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid WHERE r.state IN ('claimed', 'started')
ORDER BY s.position
"""
OPEN: Final = """
SELECT s.uid, s.namespace, s.name, s.task_uid, r.run, r.state, r.runner, r.instance
FROM sessions.sessions s LEFT JOIN LATERAL (SELECT * FROM sessions.runs n WHERE n.session_uid = s.uid
    ORDER BY n.run DESC LIMIT 1) r ON true
WHERE s.revoked IS NULL AND NOT s.closed
"""
"""A further condition and the order follow."""
LOCKED_RUN: Final = f"SELECT {RUN_JSON} FROM sessions.runs r WHERE session_uid = %s AND run = %s FOR UPDATE"


class SessionRow:
    """What one row of ``SESSION`` says."""

    def __init__(self, row: tuple[Any, ...]) -> None:
        *offer, revoked, closed, runs, records, wanted, waiting, held, revision, voids, self.now = row
        self.bar = Bar.newest(revision, *(Bar(*void) for void in voids))
        self.permits: Mapping[int, StoredPermit] = {run["run"]: _permit(run) for run in runs}
        claimable = revoked is None and not closed and (not runs or runs[-1]["state"] == RunState.PERMITTED)
        self.view = SessionView(
            offer=Offer(*offer),
            runs=tuple(self._run(run) for run in runs),
            revoked=revoked,
            closed=closed,
            record_digests=tuple((run, sequence, digest) for run, sequence, digest in records),
            wanted=wanted,
            held_by=None if held is None else HeldBy(held),
            passed_over=claimable and not waiting,
        )

    def _run(self, run: Mapping[str, Any]) -> RunView:
        usable = self.permits[run["run"]].usable(self.bar.revision, self.now)
        return run_view(run, permit_expired=run["state"] == RunState.PERMITTED and not usable)


def live_run(row: tuple[Any, ...]) -> LiveRun:
    """A row of ``LIVE``."""
    return LiveRun(*row)


def open_session(row: tuple[Any, ...]) -> OpenSession:
    """A row of ``OPEN``."""
    uid, namespace, name, task_uid, run, state, runner, instance = row
    known = None if state is None else RunState(state)
    return OpenSession(uid, namespace, name, task_uid, run or 0, known, runner, instance)


def run_view(run: Mapping[str, Any], *, permit_expired: bool = False) -> RunView:
    """A ``RUN_JSON`` object as a value."""
    known = {field.name: run[field.name] for field in fields(RunView) if field.name in run}
    known["state"] = RunState(run["state"])
    known["usage"] = Usage(*run["usage"])
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
