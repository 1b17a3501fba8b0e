-- Claims under load: limits, fairness, permits that are asked for before they are written, and revocations that
-- concern one Task (docs/adr/0009).

-- The row a claim and a revocation hold alone: neither is ever beside another. ``pace`` counts claims, fading.
ALTER TABLE sessions.revocation
    ADD COLUMN pace     double precision NOT NULL DEFAULT 0,
    ADD COLUMN paced_at timestamptz      NOT NULL DEFAULT 'epoch';

-- waiting: claimable once it has a valid permit. revoked_revision: what permits of the same Task are held against.
ALTER TABLE sessions.sessions
    ADD COLUMN waiting          boolean     NOT NULL DEFAULT true,
    ADD COLUMN wanted_at        timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN revoked_revision bigint      NOT NULL DEFAULT 0;

UPDATE sessions.sessions s
SET revoked_revision = CASE WHEN s.revoked IS NULL THEN 0 ELSE (SELECT revision FROM sessions.revocation) END,
    waiting = s.revoked IS NULL AND NOT s.closed
        AND NOT EXISTS (SELECT 1 FROM sessions.runs r WHERE r.session_uid = s.uid
            AND r.run = (SELECT max(n.run) FROM sessions.runs n WHERE n.session_uid = s.uid)
            AND r.state <> 'permitted');

-- What a claim looks at: it costs what is waiting and what is live, whatever has finished.
CREATE INDEX waiting_sessions ON sessions.sessions (position) WHERE waiting;
CREATE INDEX sessions_of_task ON sessions.sessions (task_uid, revoked_revision);

ALTER TABLE sessions.runs ADD COLUMN first_record_at timestamptz;

-- How many runs of an Agent, or of all ('') may be live at once, as the operator said last. NULL: no limit.
CREATE TABLE sessions.limits (
    agent_uid  text        COLLATE "C" PRIMARY KEY,
    most       integer     CHECK (most > 0),
    decided_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions.limits TO triplane_sessions_writer;
GRANT SELECT ON sessions.limits TO triplane_sessions_reader;
