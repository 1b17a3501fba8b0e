-- What governance needs of execution: permits voided from above, what has been spent, calls that wait for a person.

-- Permits decided before a namespace's revision, or that of all (''), are void. Few rows: one per namespace.
CREATE TABLE sessions.voids (
    namespace text   COLLATE "C" PRIMARY KEY,
    revision  bigint NOT NULL,
    reason    text   NOT NULL
);

ALTER TABLE sessions.sessions ADD COLUMN node_uid text;

ALTER TABLE sessions.runs
    ADD COLUMN input_tokens     bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_tokens    bigint NOT NULL DEFAULT 0,
    ADD COLUMN cost_minor_units bigint NOT NULL DEFAULT 0;

-- What the runs that are over have used beneath a Task, Node or Graph. In shards, so that runs of one Graph that end
-- together do not wait for each other's commit; updated in place, hence the room.
CREATE TABLE sessions.spent (
    uid              text     COLLATE "C" NOT NULL,
    shard            smallint NOT NULL,
    tokens           numeric  NOT NULL,
    cost_minor_units numeric  NOT NULL,
    microseconds     numeric  NOT NULL,
    sessions         bigint   NOT NULL,
    PRIMARY KEY (uid, shard)
) WITH (fillfactor = 50);

UPDATE sessions.runs SET
    input_tokens = least((result -> 'usage' ->> 'input_tokens')::numeric, 9007199254740991),
    output_tokens = least((result -> 'usage' ->> 'output_tokens')::numeric, 9007199254740991),
    cost_minor_units = least((result -> 'usage' ->> 'cost_minor_units')::numeric, 9007199254740991)
WHERE result IS NOT NULL;

INSERT INTO sessions.spent (uid, shard, tokens, cost_minor_units, microseconds, sessions)
SELECT above.uid, s.position % 8, sum(r.input_tokens + r.output_tokens), sum(r.cost_minor_units),
    sum(greatest(0, coalesce(trunc(extract(epoch FROM r.ended_at - r.started_at) * 1000000), 0))),
    count(*) FILTER (WHERE r.run = 1)
FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid,
    LATERAL (SELECT s.task_uid UNION SELECT s.graph_uid) AS above (uid)
WHERE r.state IN ('finished', 'lost', 'revoked')
GROUP BY above.uid, s.position % 8;

CREATE TABLE sessions.questions (
    session_uid text        COLLATE "C" NOT NULL,
    invocation  text        COLLATE "C" NOT NULL,
    run         integer     NOT NULL,
    digest      text        NOT NULL,
    tool        text        NOT NULL,
    approvers   text[]      NOT NULL,
    asked_at    timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    answer      boolean,
    review      text,
    principal   text,
    PRIMARY KEY (session_uid, invocation),
    FOREIGN KEY (session_uid, run) REFERENCES sessions.runs
);

GRANT SELECT, INSERT, UPDATE ON sessions.voids, sessions.spent, sessions.questions TO triplane_sessions_writer;
GRANT SELECT ON sessions.voids, sessions.spent, sessions.questions TO triplane_sessions_reader;
