"""The statements of the session store, by name. Locks are taken in one order: revocation, session, run."""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from typing import Final

CHANNEL: Final = "triplane_sessions"
RING: Final = f"SELECT pg_notify('{CHANNEL}', '')"

_USABLE = """r.state = 'permitted' AND s.revoked IS NULL AND NOT s.closed AND r.revocation_revision >=
%(revision)s AND r.permitted_at <= clock_timestamp() AND clock_timestamp() < r.permitted_at +
make_interval(secs => r.permit_seconds)"""

OFFER: Final = """
INSERT INTO sessions.sessions
    (uid, namespace, name, task_uid, graph_uid, agent_uid, agent_name, role, snapshot_digest, work_order)
VALUES (%(session_uid)s, %(namespace)s, %(name)s, %(task_uid)s, %(graph_uid)s, %(agent_uid)s, %(agent_name)s,
    %(role)s, %(snapshot_digest)s, %(work_order)s::jsonb)
ON CONFLICT (uid) DO NOTHING
"""
PERMIT: Final = """
INSERT INTO sessions.runs (session_uid, run, state, permit_counter, revocation_revision, authority_digest,
    policy_digest, permitted_at, permit_seconds, run_inputs)
VALUES (%(session_uid)s, %(run)s, 'permitted', %(counter)s, %(revocation_revision)s, %(authority_digest)s,
    %(policy_digest)s,
    least(coalesce(%(decided_at)s::timestamptz, clock_timestamp()), clock_timestamp()),
    %(seconds)s, %(run_inputs)s::jsonb)
ON CONFLICT (session_uid, run) DO UPDATE SET permit_counter = excluded.permit_counter,
    revocation_revision = excluded.revocation_revision, authority_digest = excluded.authority_digest,
    policy_digest = excluded.policy_digest, permitted_at = excluded.permitted_at,
    permit_seconds = excluded.permit_seconds, run_inputs = excluded.run_inputs
"""
NOT_WANTED: Final = "UPDATE sessions.sessions SET wanted = false WHERE uid = %s AND wanted"
COUNTER: Final = "SELECT permit_counter + 1 FROM sessions.runs WHERE session_uid = %s AND run = %s"

ANY_PERMITTED: Final = """
SELECT EXISTS (SELECT 1 FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid
    WHERE r.state = 'permitted' AND s.revoked IS NULL AND NOT s.closed)
"""
SHARE_REVISION: Final = "SELECT revision FROM sessions.revocation FOR SHARE"
LOCK_REVISION: Final = "SELECT revision FROM sessions.revocation FOR UPDATE"
REVISION: Final = "SELECT revision FROM sessions.revocation"
LOCK_SESSION: Final = "SELECT 1 FROM sessions.sessions WHERE uid = %s FOR UPDATE"
LOCK_RUN: Final = "SELECT 1 FROM sessions.runs WHERE session_uid = %s AND run = %s FOR UPDATE"

PICK: Final = f"""
SELECT r.session_uid, r.run FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid
WHERE {_USABLE} ORDER BY s.position LIMIT 1 FOR UPDATE OF r, s SKIP LOCKED
"""
TAKE: Final = """
UPDATE sessions.runs SET state = 'claimed', runner = %s, instance = %s, claimed_at = clock_timestamp()
WHERE session_uid = %s AND run = %s
"""
WANT_OLDEST: Final = f"""
UPDATE sessions.sessions SET wanted = true WHERE uid = (
    SELECT s.uid FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid
    WHERE r.state = 'permitted' AND s.revoked IS NULL AND NOT s.closed AND NOT s.wanted AND NOT ({_USABLE})
    ORDER BY s.position LIMIT 1 FOR UPDATE OF s SKIP LOCKED)
"""
WANT: Final = "UPDATE sessions.sessions SET wanted = true WHERE uid = %s"

START: Final = """
UPDATE sessions.runs SET state = 'started', facts = %s::jsonb, started_at = clock_timestamp()
WHERE session_uid = %s AND run = %s
"""
RENEW: Final = """
UPDATE sessions.runs SET counter = greatest(counter, %s)
WHERE session_uid = %s AND run = %s AND state IN ('claimed', 'started')
"""
RECORDED: Final = "SELECT digest FROM sessions.records WHERE session_uid = %s AND run = %s AND sequence = %s"
RECORD: Final = "INSERT INTO sessions.records (session_uid, run, sequence, digest) VALUES (%s, %s, %s, %s)"
RECORDS: Final = "UPDATE sessions.runs SET records = %s WHERE session_uid = %s AND run = %s"
FINISH: Final = """
UPDATE sessions.runs SET state = 'finished', result = %s::jsonb, ended_at = clock_timestamp()
WHERE session_uid = %s AND run = %s
"""
LOSE: Final = """
UPDATE sessions.runs SET state = 'lost', end_reason = %s, ended_at = clock_timestamp()
WHERE session_uid = %s AND run = %s AND state IN ('claimed', 'started') AND counter = %s
"""
LOSE_INSTANCES: Final = """
WITH theirs AS (
    SELECT session_uid, run FROM sessions.runs
    WHERE state IN ('claimed', 'started') AND runner = %s AND instance <> %s
    ORDER BY session_uid, run FOR UPDATE
)
UPDATE sessions.runs r SET state = 'lost', end_reason = %s, ended_at = clock_timestamp()
FROM theirs WHERE r.session_uid = theirs.session_uid AND r.run = theirs.run RETURNING r.session_uid, r.run
"""
REVOKE: Final = """
UPDATE sessions.sessions SET revoked = %s, wanted = false WHERE uid = %s AND revoked IS NULL
"""
REVOKE_RUN: Final = """
UPDATE sessions.runs SET state = 'revoked', end_reason = %s, ended_at = clock_timestamp()
WHERE session_uid = %s AND state IN ('claimed', 'started')
"""
BUMP: Final = "UPDATE sessions.revocation SET revision = revision + 1"
CLOSE: Final = "UPDATE sessions.sessions SET closed = true, wanted = false WHERE uid = %s"

WANTED: Final = "SELECT uid FROM sessions.sessions WHERE wanted ORDER BY position"
LIVE: Final = """
WHERE EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = s.uid AND r.state IN ('claimed', 'started'))
ORDER BY s.position
"""
OPEN: Final = "WHERE s.revoked IS NULL AND NOT s.closed ORDER BY s.position"
THESE: Final = "WHERE s.uid = ANY (%s)"

OWN_BLOB: Final = "INSERT INTO sessions.blob_owners (namespace, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING"
OWNS_BLOB: Final = "SELECT 1 FROM sessions.blob_owners WHERE namespace = %s AND digest = %s"
DISOWN_BLOB: Final = "DELETE FROM sessions.blob_owners WHERE digest = %s"

CURSOR: Final = "SELECT seq FROM sessions.cursors WHERE name = %s"
SET_CURSOR: Final = """
INSERT INTO sessions.cursors AS c (name, seq) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET seq = excluded.seq WHERE c.seq < excluded.seq
"""
