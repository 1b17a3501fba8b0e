-- Execution: offers, permits, claims, results; and the accounts of people and services.

-- One row, locked FOR SHARE by claims and FOR UPDATE by revocations: a claim never misses one that committed before.
CREATE TABLE sessions.revocation (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    revision bigint  NOT NULL DEFAULT 0
);
INSERT INTO sessions.revocation DEFAULT VALUES;

CREATE TABLE sessions.sessions (
    uid             text    COLLATE "C" PRIMARY KEY,
    position        bigint  GENERATED ALWAYS AS IDENTITY,
    namespace       text    NOT NULL,
    name            text    NOT NULL,
    task_uid        text    NOT NULL,
    graph_uid       text    NOT NULL,
    agent_uid       text    NOT NULL,
    agent_name      text    NOT NULL,
    role            text    NOT NULL,
    snapshot_digest text    NOT NULL,
    work_order      jsonb   NOT NULL,
    revoked         text,
    closed          boolean NOT NULL DEFAULT false,
    wanted          boolean NOT NULL DEFAULT false
);
CREATE INDEX open_sessions ON sessions.sessions (position) WHERE revoked IS NULL AND NOT closed;
CREATE INDEX wanted_sessions ON sessions.sessions (position) WHERE wanted;

CREATE TABLE sessions.runs (
    session_uid         text             COLLATE "C" NOT NULL REFERENCES sessions.sessions,
    run                 integer          NOT NULL CHECK (run > 0),
    state               text             NOT NULL
        CHECK (state IN ('permitted', 'claimed', 'started', 'finished', 'lost', 'revoked')),
    permit_counter      integer          NOT NULL,
    revocation_revision bigint           NOT NULL,
    authority_digest    text             NOT NULL,
    policy_digest       text             NOT NULL,
    permitted_at        timestamptz      NOT NULL,
    permit_seconds      double precision NOT NULL,
    run_inputs          jsonb            NOT NULL,
    runner              text,
    instance            text,
    counter             bigint           NOT NULL DEFAULT 0,
    records             integer          NOT NULL DEFAULT 0,
    facts               jsonb            NOT NULL DEFAULT '{}',
    result              jsonb,
    end_reason          text,
    claimed_at          timestamptz,
    started_at          timestamptz,
    ended_at            timestamptz,
    PRIMARY KEY (session_uid, run)
);
CREATE INDEX permitted_runs ON sessions.runs (session_uid) WHERE state = 'permitted';
CREATE INDEX live_runs ON sessions.runs (runner, session_uid) WHERE state IN ('claimed', 'started');

CREATE TABLE sessions.records (
    session_uid text    COLLATE "C" NOT NULL,
    run         integer NOT NULL,
    sequence    integer NOT NULL,
    digest      text    NOT NULL,
    PRIMARY KEY (session_uid, run, sequence),
    FOREIGN KEY (session_uid, run) REFERENCES sessions.runs
);

CREATE TABLE sessions.cursors (
    name text   PRIMARY KEY,
    seq  bigint NOT NULL
);

-- Who is who. What identifies a person lives in principal_names alone: deleting that row erases the person, while the
-- keyed hash still gives the same principal id to whoever logs in again.
CREATE TABLE sessions.principals (
    key bytea PRIMARY KEY,
    id  text  NOT NULL UNIQUE
);
CREATE TABLE sessions.principal_names (
    id       text PRIMARY KEY REFERENCES sessions.principals (id),
    username text NOT NULL,
    uid      text NOT NULL,
    salt     text NOT NULL
);

CREATE TABLE sessions.tokens (
    name   text PRIMARY KEY,
    role   text NOT NULL,
    sha256 text NOT NULL UNIQUE
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sessions TO triplane_sessions_writer;
GRANT SELECT ON sessions.revocation, sessions.sessions, sessions.runs, sessions.records, sessions.cursors
    TO triplane_sessions_reader;
