-- The event log. The octets are the truth; every other column is a projection that verification recomputes.

CREATE TABLE log.heads (
    origin  text PRIMARY KEY,
    current boolean NOT NULL DEFAULT true,
    size    bigint  NOT NULL DEFAULT 0,
    leaf    bytea   NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    time    text    NOT NULL DEFAULT ''
) WITH (fillfactor = 20);
CREATE UNIQUE INDEX one_current_origin ON log.heads (current) WHERE current;

CREATE TABLE log.writers (
    login  text   NOT NULL,
    writer text   NOT NULL,
    epoch  bigint NOT NULL,
    PRIMARY KEY (login, writer)
);

CREATE TABLE log.entries (
    origin    text   NOT NULL,
    seq       bigint NOT NULL,
    octets    bytea  NOT NULL,
    leaf      bytea  NOT NULL,
    id        text   NOT NULL,
    stream    text   NOT NULL,
    type      text   NOT NULL,
    time      text   NOT NULL,
    actor     text   NOT NULL,
    kind      text   NOT NULL,
    namespace text   NOT NULL,
    name      text   NOT NULL,
    uid       text   NOT NULL,
    PRIMARY KEY (origin, seq)
);
CREATE INDEX entries_by_uid ON log.entries (uid, seq);

-- Apart from the entries, so that archiving or partitioning them cannot make an id free again.
CREATE TABLE log.entry_ids (
    origin      text   NOT NULL,
    id          text   NOT NULL,
    seq         bigint NOT NULL,
    body_sha256 bytea  NOT NULL,
    PRIMARY KEY (origin, id)
);

CREATE FUNCTION log.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on log.% refused: the log is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'TP002';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.entries FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.entry_ids FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON log.heads FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON log.writers FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.entries EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.entry_ids EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.heads EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.writers EXECUTE FUNCTION log.refuse_change();
-- ALWAYS: also where session_replication_role says otherwise.
ALTER TABLE log.entries ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
ALTER TABLE log.entry_ids ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
ALTER TABLE log.heads ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
ALTER TABLE log.writers ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;

-- Plans are cached when the tables are still empty, and a scan of an empty table is cheap: hence no enable_seqscan below.

-- Take the head row and hold it to the end of the transaction; refuse a writer whose epoch is over.
-- known_ids are those of p_ids that are in the log already.
CREATE FUNCTION log.log_lock_head(
    p_origin text, p_writer text, p_epoch bigint, p_ids text[],
    OUT size bigint, OUT leaf bytea, OUT last_time text, OUT known_ids text[]
) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_epoch bigint;
BEGIN
    SELECT h.size, h.leaf, h.time INTO size, leaf, last_time FROM log.heads h WHERE h.origin = p_origin FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no log has the origin %', p_origin USING ERRCODE = 'TP003';
    END IF;
    -- A new statement, so a new snapshot: it sees an epoch begun while this one waited for the head.
    SELECT w.epoch INTO v_epoch FROM log.writers w WHERE w.login = session_user AND w.writer = p_writer;
    IF coalesce(v_epoch, 0) <> p_epoch THEN
        RAISE EXCEPTION 'writer % of % has epoch %, not %', p_writer, session_user, coalesce(v_epoch, 0), p_epoch
            USING ERRCODE = 'TP001';
    END IF;
    SELECT array_agg(i.id) INTO known_ids FROM log.entry_ids i WHERE i.origin = p_origin AND i.id = ANY (p_ids);
END $$;

-- Append whole entries behind the head. Projections and leaf hashes are computed here, so that a caller cannot make
-- them differ from the octets, and seq, prev, origin and time must continue the chain.
CREATE FUNCTION log.log_append(
    p_origin text, p_writer text, p_epoch bigint, p_octets bytea[], p_bodies bytea[]
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_head  record;
    v_count bigint := cardinality(p_octets);
    v_done  bigint;
BEGIN
    SELECT * INTO v_head FROM log.log_lock_head(p_origin, p_writer, p_epoch, '{}');
    IF v_count = 0 OR v_count <> cardinality(p_bodies) THEN
        RAISE EXCEPTION '% entries with % bodies', v_count, cardinality(p_bodies) USING ERRCODE = 'TP004';
    END IF;
    WITH parsed AS MATERIALIZED (
        SELECT n, octets, body, sha256('\x00'::bytea || octets) AS leaf, convert_from(octets, 'UTF8')::jsonb AS entry
        FROM unnest(p_octets, p_bodies) WITH ORDINALITY AS given(octets, body, n)
    ), chained AS (
        SELECT *, lag(leaf, 1, v_head.leaf) OVER (ORDER BY n) AS before,
            lag(entry ->> 'time', 1, v_head.last_time) OVER (ORDER BY n) AS earlier
        FROM parsed
    ), inserted AS (
        INSERT INTO log.entries
        SELECT p_origin, v_head.size + n - 1, octets, leaf, entry ->> 'id', entry ->> 'stream', entry ->> 'type',
            entry ->> 'time', entry ->> 'actor', entry #>> '{subject,kind}', entry #>> '{subject,namespace}',
            entry #>> '{subject,name}', entry #>> '{subject,uid}'
        FROM chained
        WHERE entry ->> 'seq' = (v_head.size + n - 1)::text AND entry ->> 'prev' = encode(before, 'hex')
            AND entry ->> 'origin' = p_origin AND entry ->> 'time' >= earlier AND length(octets) <= 65535
        RETURNING seq, id
    )
    INSERT INTO log.entry_ids
    SELECT p_origin, inserted.id, inserted.seq, p_bodies[inserted.seq - v_head.size + 1] FROM inserted;
    GET DIAGNOSTICS v_done = ROW_COUNT;
    IF v_done <> v_count THEN
        RAISE EXCEPTION '% of % entries do not continue the chain at %', v_count - v_done, v_count, v_head.size
            USING ERRCODE = 'TP004';
    END IF;
    UPDATE log.heads h SET size = v_head.size + v_count, leaf = e.leaf, time = e.time
    FROM log.entries e
    WHERE h.origin = p_origin AND e.origin = p_origin AND e.seq = v_head.size + v_count - 1;
    RETURN v_head.size + v_count;
END $$;

-- Fence every earlier holder of the writer's name. The head lock makes it wait for an append under way, so that none
-- commits under the old epoch afterwards.
CREATE FUNCTION log.log_begin_epoch(p_origin text, p_writer text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM 1 FROM log.heads WHERE origin = p_origin FOR UPDATE;
    INSERT INTO log.writers AS w VALUES (session_user, p_writer, 1)
    ON CONFLICT (login, writer) DO UPDATE SET epoch = w.epoch + 1 RETURNING epoch INTO v_epoch;
    RETURN v_epoch;
END $$;

REVOKE ALL ON FUNCTION log.refuse_change() FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_lock_head(text, text, bigint, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_append(text, text, bigint, bytea[], bytea[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_begin_epoch(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.log_lock_head(text, text, bigint, text[]) TO triplane_log_appender;
GRANT EXECUTE ON FUNCTION log.log_append(text, text, bigint, bytea[], bytea[]) TO triplane_log_appender;
GRANT EXECUTE ON FUNCTION log.log_begin_epoch(text, text) TO triplane_log_appender;
GRANT SELECT ON log.heads, log.writers, log.entries, log.entry_ids TO triplane_log_reader;
