-- The log at full strength: entries in partitions by sequence range, appended as fields from which the server makes
-- the octets, and archived by whole tiles.

-- Partitions. The table that was becomes the first of them as it stands; nothing is rewritten.

CREATE FUNCTION log.partition_entries() RETURNS bigint LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp RETURN 1048576; -- 4,096 tiles

ALTER TABLE log.heads ADD COLUMN capacity bigint NOT NULL DEFAULT 0; -- entries below it have a partition

DROP TRIGGER append_only ON log.entries;
ALTER TABLE log.entries RENAME TO entries_0;
ALTER TABLE log.entries_0 RENAME CONSTRAINT entries_pkey TO entries_0_pkey;
ALTER INDEX log.entries_by_uid RENAME TO entries_0_by_uid;
REVOKE ALL ON log.entries_0 FROM triplane_log_reader; -- readers go by the parent

CREATE TABLE log.entries (LIKE log.entries_0, PRIMARY KEY (origin, seq)) PARTITION BY RANGE (seq);
CREATE INDEX entries_by_uid ON log.entries (uid, seq);
GRANT SELECT ON log.entries TO triplane_log_reader;

-- What was archived, and until where. A row of archived_entries stands for an entry that is kept elsewhere: enough to
-- answer for its id, and to prove what follows it.
CREATE TABLE log.archives (
    origin     text   NOT NULL,
    upto_seq   bigint NOT NULL CHECK (upto_seq > 0 AND upto_seq % 256 = 0), -- entries 0 to upto_seq - 1 are archived
    leaf       bytea  NOT NULL CHECK (length(leaf) = 32), -- of entry upto_seq - 1, the left edge of what is here
    root       bytea  NOT NULL CHECK (length(root) = 32), -- RFC 6962, of the first upto_seq entries
    checkpoint bytea  NOT NULL, -- the signed note up to which the archive was verified; not smaller than upto_seq
    place      text   NOT NULL, -- where the archive is, as the archivist named it
    time       text   NOT NULL,
    PRIMARY KEY (origin, upto_seq)
);
CREATE TABLE log.archived_entries (
    origin text   NOT NULL,
    seq    bigint NOT NULL,
    leaf   bytea  NOT NULL,
    time   text   NOT NULL,
    PRIMARY KEY (origin, seq)
);

-- Entries are never changed, and leave only once the archive's boundary is recorded behind them.
CREATE FUNCTION log.refuse_unless_archived() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM log.archives a WHERE a.origin = OLD.origin AND a.upto_seq > OLD.seq)
        AND EXISTS (SELECT FROM log.archived_entries a
            WHERE a.origin = OLD.origin AND a.seq = OLD.seq AND a.leaf = OLD.leaf) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on log.% refused: the log is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'TP002';
END $$;

-- Cloned to every partition; statement triggers are not, so each partition has its own.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.entries
    FOR EACH ROW EXECUTE FUNCTION log.refuse_unless_archived();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.entries EXECUTE FUNCTION log.refuse_change();
ALTER TABLE log.entries ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.archives FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.archives EXECUTE FUNCTION log.refuse_change();
ALTER TABLE log.archives ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.archived_entries
    FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.archived_entries EXECUTE FUNCTION log.refuse_change();
ALTER TABLE log.archived_entries ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
GRANT SELECT ON log.archives, log.archived_entries TO triplane_log_reader;

DO $$
DECLARE
    v_size bigint := (SELECT coalesce(max(size), 0) FROM log.heads);
    v_upto bigint := (v_size / log.partition_entries() + 1) * log.partition_entries();
BEGIN
    EXECUTE format('ALTER TABLE log.entries ATTACH PARTITION log.entries_0 FOR VALUES FROM (MINVALUE) TO (%s)', v_upto);
    ALTER TABLE log.entries_0 ENABLE ALWAYS TRIGGER append_only;
    UPDATE log.heads SET capacity = v_upto;
END $$;

-- Attach a table as a partition, guarded as the others are.
CREATE FUNCTION log.guard_partition(p_name text, p_bound text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.%I EXECUTE FUNCTION log.refuse_change()',
        p_name);
    EXECUTE format('ALTER TABLE log.entries ATTACH PARTITION log.%I %s', p_name, p_bound);
    EXECUTE format('ALTER TABLE log.%I ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated', p_name);
END $$;

-- Partitions up to p_upto entries, from p_capacity on; the new capacity. Made apart and attached, so that readers of
-- the log are not waited for; the caller holds the head row, so one at a time for each origin.
CREATE FUNCTION log.make_room(p_capacity bigint, p_upto bigint) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    v_each  bigint := log.partition_entries();
    v_first bigint := p_capacity;
    v_last  bigint;
    v_name  text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('log.make_room')); -- another origin's writer
    IF v_first = 0 THEN -- a new origin: what there is of partitions is there for it too
        SELECT max(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''?(\d+)''?\)')::bigint) INTO v_first
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'log.entries'::regclass;
        v_first := coalesce(v_first, 0);
    END IF;
    WHILE v_first < p_upto LOOP
        v_last := v_first + v_each - v_first % v_each;
        v_name := 'entries_' || v_first;
        IF to_regclass('log.' || v_name) IS NULL THEN
            EXECUTE format('CREATE TABLE log.%I (LIKE log.entries INCLUDING ALL)', v_name);
            PERFORM log.guard_partition(v_name, format('FOR VALUES FROM (%s) TO (%s)', v_first, v_last));
        END IF;
        v_first := v_last;
    END LOOP;
    RETURN v_first;
END $$;

-- An entry without what the sequencer adds. blobs, data and labels are JSON as it stands in the octets.
CREATE TYPE log.new_entry AS (
    actor text, stream text, api_version text, kind text, namespace text, type text, labels text,
    id text, name text, uid text, generation bigint, blobs text, data text, body_sha256 bytea
);

DROP FUNCTION log.log_append(text, text, bigint, bigint, text[], bytea[], bytea[]);

-- Whether JSON that was let through so far is of what the format has: no \u0000, no lone surrogates, integers within
-- 2^53-1 only, not nested deeper than 16 within an array. There are readers that can read nothing else.
CREATE FUNCTION log.is_readable(p_json text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
    RETURN regexp_replace(p_json, '"([^"\\]|\\.)*"', '""', 'g') !~ '[0-9][.eE]|[0-9]{17}'
        AND NOT jsonb_path_exists(p_json::jsonb,
            'strict $.** ? (@.type() == "number" && (@ > 9007199254740991 || @ < -9007199254740991))')
        AND NOT jsonb_path_exists(p_json::jsonb, 'strict $.**{18 to last}');
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN false;
END $$;

-- Append entries behind the head. False, and nothing done, when the log does not hold p_size entries. An id that is
-- in the log already is refused by its unique index.
--
-- The octets are made here, of the very fields that become the projections, and each p_leaf must be their hash: so a
-- caller can make neither differ from the octets, nor seq, prev, origin or time from what continues the chain. No text
-- may hold what JSON escapes, and blobs, data and labels must each be one whole JSON value, or a field could end early
-- and another begin within it; what in them might be a number or an escape that some reader refuses is looked at twice.
-- The time moves on no further than the server's clock, and a little for clocks that differ: nobody could append behind
-- an entry of the year 9999. What the texts below mean is not for the caller's session to say: hence the settings.
CREATE FUNCTION log.log_append(
    p_origin text, p_writer text, p_epoch bigint, p_size bigint, p_time text, p_entries log.new_entry[], p_leaves bytea[]
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off SET standard_conforming_strings = on AS $$
DECLARE
    v_head  record;
    v_epoch bigint;
    v_count bigint := cardinality(p_entries);
    v_done  bigint;
    v_form  text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
BEGIN
    SELECT h.size, h.leaf, h.time, h.capacity INTO v_head FROM log.heads h WHERE h.origin = p_origin FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no log has the origin %', p_origin USING ERRCODE = 'TP003';
    END IF;
    -- A new statement, so a new snapshot: it sees an epoch begun while this one waited for the head.
    SELECT w.epoch INTO v_epoch FROM log.writers w WHERE w.login = session_user AND w.writer = p_writer;
    IF coalesce(v_epoch, 0) <> p_epoch THEN
        RAISE EXCEPTION 'writer % of % has epoch %, not %', p_writer, session_user, coalesce(v_epoch, 0), p_epoch
            USING ERRCODE = 'TP001';
    END IF;
    IF v_head.size <> p_size THEN
        RETURN false;
    END IF;
    IF (v_count = cardinality(p_leaves) AND array_ndims(p_entries) = 1 AND array_ndims(p_leaves) = 1
        AND array_lower(p_entries, 1) = 1 AND array_lower(p_leaves, 1) = 1
        AND p_time ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$' AND p_time >= v_head.time) IS NOT TRUE THEN
        RAISE EXCEPTION '% entries with % leaves at % after % do not continue the chain at %',
            v_count, cardinality(p_leaves), p_time, v_head.time, p_size USING ERRCODE = 'TP004';
    END IF;
    IF p_time > v_head.time THEN
        IF NOT pg_input_is_valid(p_time, 'timestamp') OR to_char(p_time::timestamp, v_form) <> p_time THEN
            RAISE EXCEPTION '% is no time', p_time USING ERRCODE = 'TP004';
        END IF;
        IF p_time::timestamp > (clock_timestamp() AT TIME ZONE 'UTC') + interval '5 minutes' THEN
            RAISE EXCEPTION 'the time % is over 5 minutes ahead of the server''s clock, which is at %: set the clock',
                p_time, to_char(clock_timestamp() AT TIME ZONE 'UTC', v_form) USING ERRCODE = 'TP007';
        END IF;
    END IF;
    -- The next partition is there an eighth of one before it is needed.
    IF p_size + v_count + log.partition_entries() / 8 > v_head.capacity THEN
        v_head.capacity := log.make_room(v_head.capacity, p_size + v_count + log.partition_entries() / 8);
    END IF;
    INSERT INTO log.entries
    SELECT p_origin, seq, octets, leaf, id, stream, type, p_time, actor, kind, namespace, name, uid
    FROM (
        SELECT *, convert_to(concat('{"actor":"', actor, '","blobs":', blobs, ',"data":', data, ',"id":"', id,
            '","origin":"', p_origin, '","prev":"', encode(prev, 'hex'), '","seq":', p_size + n - 1,
            ',"stream":"', stream, '","subject":{"apiVersion":"', api_version, '","generation":', generation,
            ',"kind":"', kind, '","labels":', labels, ',"name":"', name, '","namespace":"', namespace,
            '","uid":"', uid, '"},"time":"', p_time, '","type":"', type, '","v":1}'), 'UTF8') AS octets,
            concat(id, actor, stream, api_version, kind, namespace, name, uid, type) AS texts,
            concat_ws(',', data, blobs, labels) COLLATE "C" AS json, p_size + n - 1 AS seq
        FROM ROWS FROM (unnest(p_entries), unnest(p_leaves), unnest(v_head.leaf || p_leaves[:v_count - 1]))
            WITH ORDINALITY AS given(actor, stream, api_version, kind, namespace, type, labels, id, name, uid, generation,
                blobs, data, body_sha256, leaf, prev, n)
        OFFSET 0) AS made
    WHERE sha256('\x00'::bytea || octets) = leaf AND length(octets) <= 65535 AND generation >= 0
        AND to_json(texts)::text = '"' || texts || '"'
        AND data IS JSON OBJECT AND blobs IS JSON ARRAY AND labels IS JSON ARRAY
        AND (json !~ '\\u|[\t\r\n]|([" ]:|[[,]) *-?([0-9]+[.eE]|[0-9]{16})' AND (octet_length(json) < 2048 OR
                length(replace(json, '[', '')) + length(replace(json, '{', '')) > 2 * length(json) - 1000)
            OR log.is_readable(concat('[', json, ']')));
    GET DIAGNOSTICS v_done = ROW_COUNT;
    IF v_done <> v_count THEN
        RAISE EXCEPTION '% of % entries do not continue the chain at %', v_count - v_done, v_count, p_size
            USING ERRCODE = 'TP004';
    END IF;
    INSERT INTO log.entry_ids
    SELECT p_origin, id, p_size + n - 1, body_sha256
    FROM unnest(p_entries) WITH ORDINALITY AS given(actor, stream, api_version, kind, namespace, type, labels, id, name,
        uid, generation, blobs, data, body_sha256, n);
    UPDATE log.heads h
    SET size = p_size + v_count, leaf = p_leaves[v_count], time = p_time, capacity = v_head.capacity
    WHERE h.origin = p_origin;
    RETURN true;
END $$;

-- Record that the first p_upto entries are kept in an archive, verified up to a published checkpoint. For the owner:
-- `triplane log archive` calls it once the archive is complete on disk, and removes the rows afterwards.
CREATE FUNCTION log.log_archive(
    p_origin text, p_upto bigint, p_root bytea, p_checkpoint bytea, p_size bigint, p_place text, p_time text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_from bigint;
    v_done bigint;
BEGIN
    LOCK TABLE log.archives IN SHARE ROW EXCLUSIVE MODE; -- one archivist at a time; readers go on
    SELECT coalesce(max(a.upto_seq), 0) INTO v_from FROM log.archives a WHERE a.origin = p_origin;
    IF p_upto <= v_from OR p_upto > p_size
        OR NOT EXISTS (SELECT FROM log.checkpoints c WHERE c.origin = p_origin AND c.size = p_size
            AND substr(c.note, 1, length(p_checkpoint)) = p_checkpoint) THEN
        RAISE EXCEPTION 'cannot archive up to %: % are archived, and the checkpoint of % entries must be published',
            p_upto, v_from, p_size USING ERRCODE = 'TP006';
    END IF;
    INSERT INTO log.archived_entries
    SELECT e.origin, e.seq, e.leaf, e.time FROM log.entries e
    WHERE e.origin = p_origin AND e.seq >= v_from AND e.seq < p_upto;
    GET DIAGNOSTICS v_done = ROW_COUNT;
    IF v_done <> p_upto - v_from THEN
        RAISE EXCEPTION '% of the entries from % to % are missing: verify the log',
            p_upto - v_from - v_done, v_from, p_upto - 1 USING ERRCODE = 'TP006';
    END IF;
    INSERT INTO log.archives
    SELECT p_origin, p_upto, a.leaf, p_root, p_checkpoint, p_place, p_time
    FROM log.archived_entries a WHERE a.origin = p_origin AND a.seq = p_upto - 1;
END $$;

-- Remove at most p_limit entries that are archived, but for those of the types in p_keep, which the installation goes on
-- reading; how many went. A partition that lies below the boundary whole is replaced by one of what stays, or dropped.
CREATE FUNCTION log.log_remove_archived(p_origin text, p_keep text[], p_limit bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET lock_timeout = '5s' AS $$
DECLARE
    v_upto  bigint;
    v_first bigint;
    v_done  bigint;
    v_stay  bigint;
    v_other bigint;
    v_part  record;
BEGIN
    LOCK TABLE log.archives IN SHARE ROW EXCLUSIVE MODE;
    SELECT coalesce(max(a.upto_seq), 0) INTO v_upto FROM log.archives a WHERE a.origin = p_origin;
    SELECT e.seq INTO v_first FROM log.entries e
    WHERE e.origin = p_origin AND e.seq >= 0 AND e.seq < v_upto AND e.type <> ALL (p_keep) ORDER BY e.seq LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT c.oid::regclass AS name, c.relname, b.bound, b.last INTO v_part
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''?(\d+)''?\)')::bigint AS last) b
    WHERE i.inhparent = 'log.entries'::regclass AND b.last > v_first ORDER BY b.last LIMIT 1;
    IF v_part.last <= v_upto THEN
        EXECUTE format('SELECT count(*) FILTER (WHERE e.type <> ALL ($1)), count(*) FILTER (WHERE e.type = ANY ($1)),'
            ' count(*) FILTER (WHERE a.seq IS NULL)'
            ' FROM %s e LEFT JOIN log.archived_entries a ON a.origin = e.origin AND a.seq = e.seq AND a.leaf = e.leaf',
            v_part.name) INTO v_done, v_stay, v_other USING p_keep;
        IF v_other = 0 THEN -- nothing of another origin, and nothing that is not in the archive
            IF v_stay > 0 THEN
                CREATE TABLE log.staying (LIKE log.entries INCLUDING ALL);
                EXECUTE format('INSERT INTO log.staying SELECT * FROM %s WHERE type = ANY ($1)', v_part.name) USING p_keep;
            END IF;
            EXECUTE format('DROP TABLE %s', v_part.name);
            IF v_stay > 0 THEN
                EXECUTE format('ALTER TABLE log.staying RENAME TO %I', v_part.relname);
                PERFORM log.guard_partition(v_part.relname, v_part.bound);
            END IF;
            RETURN v_done;
        END IF;
    END IF;
    DELETE FROM log.entries e
    WHERE e.origin = p_origin AND e.seq >= v_first AND e.seq < least(v_upto, v_first + p_limit)
        AND e.type <> ALL (p_keep);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

REVOKE ALL ON FUNCTION log.partition_entries() FROM PUBLIC;
REVOKE ALL ON FUNCTION log.refuse_unless_archived() FROM PUBLIC;
REVOKE ALL ON FUNCTION log.guard_partition(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.make_room(bigint, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.is_readable(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_append(text, text, bigint, bigint, text, log.new_entry[], bytea[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_archive(text, bigint, bytea, bytea, bigint, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_remove_archived(text, text[], bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.log_append(text, text, bigint, bigint, text, log.new_entry[], bytea[])
    TO triplane_log_appender;
