-- The writer that appended last knows the head. It appends without asking for it, so that the head lock is held for one
-- statement of the server and never across a round trip; only where another writer came in between does it lock first.

DROP FUNCTION log.log_append(text, text, bigint, bytea[], bytea[]);

-- Append whole entries behind the head. False, and nothing done, when the log does not hold p_size entries or holds one
-- of p_ids. Projections and leaf hashes are computed here, so that a caller cannot make them differ from the octets, and
-- seq, prev, origin and time must continue the chain.
CREATE FUNCTION log.log_append(
    p_origin text, p_writer text, p_epoch bigint, p_size bigint, p_ids text[], p_octets bytea[], p_bodies bytea[]
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_head  record;
    v_count bigint := cardinality(p_octets);
    v_done  bigint;
BEGIN
    SELECT * INTO v_head FROM log.log_lock_head(p_origin, p_writer, p_epoch, p_ids);
    IF v_head.size <> p_size OR v_head.known_ids IS NOT NULL THEN
        RETURN false;
    END IF;
    IF v_count = 0 OR v_count <> cardinality(p_bodies) THEN
        RAISE EXCEPTION '% entries with % bodies', v_count, cardinality(p_bodies) USING ERRCODE = 'TP004';
    END IF;
    WITH parsed AS MATERIALIZED (
        SELECT n, octets, sha256('\x00'::bytea || octets) AS leaf, convert_from(octets, 'UTF8')::jsonb AS entry
        FROM unnest(p_octets) WITH ORDINALITY AS given(octets, n)
    ), chained AS (
        SELECT *, lag(leaf, 1, v_head.leaf) OVER (ORDER BY n) AS before,
            lag(entry ->> 'time', 1, v_head.last_time) OVER (ORDER BY n) AS earlier
        FROM parsed
    ), inserted AS (
        INSERT INTO log.entries
        SELECT p_origin, p_size + n - 1, octets, leaf, entry ->> 'id', entry ->> 'stream', entry ->> 'type',
            entry ->> 'time', entry ->> 'actor', entry -> 'subject' ->> 'kind', entry -> 'subject' ->> 'namespace',
            entry -> 'subject' ->> 'name', entry -> 'subject' ->> 'uid'
        FROM chained
        WHERE entry ->> 'seq' = (p_size + n - 1)::text AND entry ->> 'prev' = encode(before, 'hex')
            AND entry ->> 'origin' = p_origin AND entry ->> 'time' >= earlier AND length(octets) <= 65535
        RETURNING seq, id
    )
    INSERT INTO log.entry_ids
    SELECT p_origin, inserted.id, inserted.seq, p_bodies[inserted.seq - p_size + 1] FROM inserted;
    GET DIAGNOSTICS v_done = ROW_COUNT;
    IF v_done <> v_count THEN
        RAISE EXCEPTION '% of % entries do not continue the chain at %', v_count - v_done, v_count, p_size
            USING ERRCODE = 'TP004';
    END IF;
    UPDATE log.heads h SET size = p_size + v_count, leaf = e.leaf, time = e.time
    FROM log.entries e
    WHERE h.origin = p_origin AND e.origin = p_origin AND e.seq = p_size + v_count - 1;
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION log.log_append(text, text, bigint, bigint, text[], bytea[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.log_append(text, text, bigint, bigint, text[], bytea[], bytea[]) TO triplane_log_appender;
