"""The statements of the session store, by name. Locks are taken in one order: revocation, session, run.

A claim and a revocation hold the one row of ``sessions.revocation`` alone, to their commit. What a claim counts is
therefore what is live, and a limit is never exceeded; a revocation comes before a claim or after it.
"""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from typing import Final

from triplane.adapters.postgres.sessionrows import BAR

_USABLE = f"""r.state = 'permitted' AND r.permitted_at <= clock_timestamp() AND clock_timestamp() < r.permitted_at +
make_interval(secs => r.permit_seconds) AND r.revocation_revision >= {BAR}"""

# Counted under the claim's lock: nothing becomes live beside it.
_COUNTS = """
live AS MATERIALIZED (
    SELECT s.agent_uid, s.graph_uid FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid
    WHERE r.state IN ('claimed', 'started')),
held AS MATERIALIZED (
    SELECT l.agent_uid FROM sessions.limits l
    WHERE l.most <= (SELECT count(*) FROM live v WHERE l.agent_uid IN ('', v.agent_uid)))"""
_FREE = "NOT EXISTS (SELECT 1 FROM held h WHERE h.agent_uid IN ('', s.agent_uid))"

OFFER: Final = """
INSERT INTO sessions.sessions
    (uid, namespace, name, task_uid, graph_uid, agent_uid, agent_name, role, snapshot_digest, work_order,
    node_uid)
VALUES (%(session_uid)s, %(namespace)s, %(name)s, %(task_uid)s, %(graph_uid)s, %(agent_uid)s, %(agent_name)s,
    %(role)s, %(snapshot_digest)s, %(work_order)s::jsonb, %(node_uid)s)
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
WAITS: Final = """
UPDATE sessions.sessions SET wanted = false, waiting = true WHERE uid = %s AND (wanted OR NOT waiting)
"""
COUNTER: Final = "SELECT permit_counter + 1 FROM sessions.runs WHERE session_uid = %s AND run = %s"
KNOWN_LIMIT: Final = "SELECT most FROM sessions.limits WHERE agent_uid = %s"
LIMIT: Final = """
INSERT INTO sessions.limits AS l (agent_uid, most, decided_at)
VALUES (%s, %s, least(coalesce(%s::timestamptz, clock_timestamp()), clock_timestamp()))
ON CONFLICT (agent_uid) DO UPDATE SET most = excluded.most, decided_at = excluded.decided_at
WHERE l.decided_at <= excluded.decided_at
"""
OUTSTANDING: Final = f"""
SELECT count(*) FILTER (WHERE permitted), count(*) FILTER (WHERE graph_uid = %(graph)s) FROM (
    SELECT s.graph_uid, true AS permitted FROM sessions.sessions s JOIN sessions.runs r ON r.session_uid = s.uid
    WHERE s.waiting AND {_USABLE}
    UNION ALL
    SELECT s.graph_uid, false FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid
    WHERE r.state IN ('claimed', 'started')) AS ready
"""

ANY_WAITING: Final = "SELECT EXISTS (SELECT 1 FROM sessions.sessions WHERE waiting)"
LOCK: Final = """
SELECT pace, greatest(extract(epoch FROM clock_timestamp() - paced_at), 0)::double precision
FROM sessions.revocation FOR UPDATE
"""
PACE: Final = "UPDATE sessions.revocation SET pace = %s, paced_at = clock_timestamp()"
REVISION: Final = "SELECT revision FROM sessions.revocation"
LOCK_SESSION: Final = "SELECT 1 FROM sessions.sessions WHERE uid = %s FOR UPDATE"
LOCK_RUN: Final = "SELECT 1 FROM sessions.runs WHERE session_uid = %s AND run = %s FOR UPDATE"

PICK: Final = f"""
WITH {_COUNTS}
SELECT r.session_uid, r.run FROM sessions.sessions s JOIN sessions.runs r ON r.session_uid = s.uid
WHERE s.waiting AND {_USABLE} AND {_FREE}
ORDER BY (SELECT count(*) FROM live v WHERE v.graph_uid = s.graph_uid), s.position
LIMIT 1 FOR UPDATE OF r, s SKIP LOCKED
"""
TAKE: Final = """
WITH taken AS (
    UPDATE sessions.sessions SET waiting = false, wanted = false WHERE uid = %(uid)s)
UPDATE sessions.runs SET state = 'claimed', runner = %(runner)s, instance = %(instance)s,
    claimed_at = clock_timestamp()
WHERE session_uid = %(uid)s AND run = %(run)s
"""
# A session on its way (a usable permit, or asked for a moment ago) counts against the number to have ready, and
# its Graph has had that much of its turn. After a claim one session is asked for in any case of a Graph that has
# nothing yet: what lies ready for others must not hold it up. Counted per Graph, not per session: thousands may wait,
# and everybody who claims waits for this.
WANT_AHEAD: Final = f"""
WITH {_COUNTS},
candidates AS MATERIALIZED (
    SELECT s.uid, s.graph_uid, s.position,
        EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = s.uid AND {_USABLE})
        OR s.wanted AND s.wanted_at > clock_timestamp() - make_interval(secs => %(asked_seconds)s) AS coming,
        s.wanted
    FROM sessions.sessions s WHERE s.waiting AND {_FREE}),
had AS (
    SELECT graph_uid, count(*) AS times FROM (
        SELECT graph_uid FROM live UNION ALL SELECT graph_uid FROM candidates WHERE coming) AS each GROUP BY graph_uid),
turns AS (
    SELECT c.uid, c.position,
        row_number() OVER (PARTITION BY c.graph_uid ORDER BY c.position) + coalesce(h.times, 0) AS turn
    FROM candidates c LEFT JOIN had h USING (graph_uid) WHERE NOT c.coming AND NOT c.wanted)
UPDATE sessions.sessions SET wanted = true, wanted_at = clock_timestamp() WHERE waiting AND NOT wanted AND uid IN (
    SELECT uid FROM turns ORDER BY turn, position
    LIMIT greatest(
        %(ahead)s - (SELECT count(*) FROM candidates WHERE coming),
        (SELECT count(*) FROM (SELECT 1 FROM turns WHERE %(taken)s AND turn = 1 LIMIT 1) AS newcomer)))
"""
WANT: Final = "UPDATE sessions.sessions SET wanted = true, wanted_at = clock_timestamp() WHERE uid = %s"

START: Final = """
UPDATE sessions.runs SET state = 'started', facts = %s::jsonb, started_at = clock_timestamp()
WHERE session_uid = %s AND run = %s
"""
RENEW: Final = """
UPDATE sessions.runs SET counter = greatest(counter, %s)
WHERE session_uid = %s AND run = %s AND state IN ('claimed', 'started')
RETURNING set_config('synchronous_commit', 'off', true)
"""
"""Not worth a sync: a counter that falls back in a crash only makes the observer's timer start anew."""
RECORDED: Final = "SELECT digest FROM sessions.records WHERE session_uid = %s AND run = %s AND sequence = %s"
RECORD: Final = "INSERT INTO sessions.records (session_uid, run, sequence, digest) VALUES (%s, %s, %s, %s)"
RECORDS: Final = """
UPDATE sessions.runs SET records = %s, first_record_at = coalesce(first_record_at, greatest(
    coalesce(started_at, claimed_at), clock_timestamp() - make_interval(secs => greatest(0, %s))))
WHERE session_uid = %s AND run = %s
"""
FINISH: Final = """
UPDATE sessions.runs SET state = 'finished', result = %s::jsonb, ended_at = clock_timestamp(), input_tokens = %s,
    output_tokens = %s, cost_minor_units = %s
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
UPDATE sessions.sessions SET revoked = %s, waiting = false, wanted = false,
    revoked_revision = (SELECT revision + 1 FROM sessions.revocation)
WHERE uid = %s AND revoked IS NULL
"""
BUMP: Final = "UPDATE sessions.revocation SET revision = revision + 1 RETURNING revision"
REVOKE_RUN: Final = """
UPDATE sessions.runs SET state = 'revoked', end_reason = %s, ended_at = clock_timestamp()
WHERE session_uid = %s AND state IN ('claimed', 'started') RETURNING session_uid, run
"""
VOID: Final = """
INSERT INTO sessions.voids (namespace, revision, reason) VALUES (%s, %s, %s)
ON CONFLICT (namespace) DO UPDATE SET revision = excluded.revision, reason = excluded.reason
"""
# Before it is void: whose permit a runner had asked for gets another as soon as there may be one.
WANT_AGAIN: Final = f"""
UPDATE sessions.sessions s SET wanted = true, wanted_at = clock_timestamp()
WHERE s.waiting AND NOT s.wanted AND s.wanted_at > 'epoch' AND %(namespace)s IN ('', s.namespace)
    AND EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = s.uid AND {_USABLE})
"""
CLOSE: Final = "UPDATE sessions.sessions SET closed = true, waiting = false, wanted = false WHERE uid = %s"

_PERMITTED = "EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = uid AND r.state = 'permitted')"
OVERTAKE: Final = f"""
UPDATE sessions.sessions SET waiting = false, wanted = false WHERE uid = %s AND (wanted OR waiting AND {_PERMITTED})
"""
LINE_UP: Final = f"""
UPDATE sessions.sessions SET waiting = true WHERE uid = %s AND NOT waiting AND NOT closed AND revoked IS NULL
    AND ({_PERMITTED} OR NOT EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = uid))
"""

WANTED: Final = "SELECT uid FROM sessions.sessions WHERE wanted ORDER BY position"
THESE: Final = "WHERE s.uid = ANY (%s)"
