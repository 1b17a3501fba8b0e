-- What archived entries name, so that blobs are still collected once they have left the database. The entry log.archived
-- says how many rows there are, and their hash.

CREATE TABLE log.archived_references (
    origin text  NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    needed boolean NOT NULL, -- it is in `blobs` of an entry; any other may never have been a blob
    PRIMARY KEY (origin, digest, needed)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.archived_references
    FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.archived_references EXECUTE FUNCTION log.refuse_change();
ALTER TABLE log.archived_references ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;
GRANT SELECT ON log.archived_references TO triplane_log_reader;

DROP FUNCTION log.log_archive(text, bigint, bytea, bytea, bigint, text, text);

-- Record that the first p_upto entries are kept in an archive, verified up to a published checkpoint, and whatever looks
-- like a digest in them; entries of the types in p_speaking name blobs without needing them. For the owner:
-- `triplane log archive` calls it once the archive is complete on disk, and removes the rows afterwards.
CREATE FUNCTION log.log_archive(
    p_origin text, p_upto bigint, p_root bytea, p_checkpoint bytea, p_size bigint, p_place text, p_time text,
    p_speaking text[]
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
    INSERT INTO log.archived_references
    SELECT p_origin, found.digest, bool_or(found.needed)
    FROM log.entries e CROSS JOIN LATERAL (
        SELECT decode(named.digits[1], 'hex'), false
        FROM regexp_matches(convert_from(e.octets, 'UTF8'), 'sha256:([0-9a-f]{64})(?![0-9a-zA-Z])', 'g') AS named (digits)
        UNION ALL
        SELECT decode(substr(blob.digest, 8), 'hex'), true
        FROM json_array_elements_text(convert_from(e.octets, 'UTF8')::json -> 'blobs') AS blob (digest)
    ) AS found (digest, needed)
    WHERE e.origin = p_origin AND e.seq >= v_from AND e.seq < p_upto AND e.type <> ALL (p_speaking)
    GROUP BY found.digest
    ON CONFLICT DO NOTHING;
    INSERT INTO log.archives
    SELECT p_origin, p_upto, a.leaf, p_root, p_checkpoint, p_place, p_time
    FROM log.archived_entries a WHERE a.origin = p_origin AND a.seq = p_upto - 1;
END $$;
REVOKE ALL ON FUNCTION log.log_archive(text, bigint, bytea, bytea, bigint, text, text, text[]) FROM PUBLIC;
