-- What is signed about the log, for readers to find, and the hashes that make its proofs cheap. Neither is believed
-- for standing here: a checkpoint bears signatures and is kept elsewhere too, a hash must lead to a signed root.

CREATE TABLE log.checkpoints (
    origin text   NOT NULL,
    size   bigint NOT NULL,
    root   bytea  NOT NULL,
    note   bytea  NOT NULL,
    PRIMARY KEY (origin, size),
    -- The columns are projections of the note; it begins with what they hold (C2SP tlog-checkpoint, "Note text").
    CONSTRAINT note_says_so CHECK (position(convert_to(
        origin || E'\n' || size || E'\n' || encode(root, 'base64') || E'\n', 'UTF8') IN note) = 1)
);

-- Complete subtrees of 256, 65,536, … leaves. Those below are hashed from log.entries when needed.
CREATE TABLE log.subtrees (
    origin text     NOT NULL,
    level  smallint NOT NULL CHECK (level BETWEEN 8 AND 56 AND level % 8 = 0),
    index  bigint   NOT NULL CHECK (index >= 0),
    hash   bytea    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (origin, level, index)
);

-- A checkpoint may gain signatures, at its end, while it is the latest; nothing else changes.
CREATE FUNCTION log.refuse_other_checkpoint() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.origin = OLD.origin AND NEW.size = OLD.size AND NEW.root = OLD.root
        AND substr(NEW.note, 1, length(OLD.note)) = OLD.note
        AND NOT EXISTS (SELECT FROM log.checkpoints c WHERE c.origin = OLD.origin AND c.size > OLD.size) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'UPDATE on log.checkpoints refused: the checkpoint of % entries only gains signatures, while it is the latest',
        OLD.size USING ERRCODE = 'TP002';
END $$;

CREATE TRIGGER append_only BEFORE DELETE ON log.checkpoints FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER only_signatures BEFORE UPDATE ON log.checkpoints
    FOR EACH ROW EXECUTE FUNCTION log.refuse_other_checkpoint();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.checkpoints EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON log.subtrees FOR EACH ROW EXECUTE FUNCTION log.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON log.subtrees EXECUTE FUNCTION log.refuse_change();
ALTER TABLE log.checkpoints ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER only_signatures,
    ENABLE ALWAYS TRIGGER never_truncated;
ALTER TABLE log.subtrees ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER never_truncated;

-- Keep a checkpoint: a new one larger than every other, or the latest with more signatures behind those it had.
CREATE FUNCTION log.log_publish(p_origin text, p_size bigint, p_root bytea, p_note bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_last record;
BEGIN
    LOCK TABLE log.checkpoints IN SHARE ROW EXCLUSIVE MODE; -- one publisher at a time; readers go on
    SELECT c.size, c.root, c.note INTO v_last FROM log.checkpoints c
    WHERE c.origin = p_origin ORDER BY c.size DESC LIMIT 1;
    IF NOT FOUND OR p_size > v_last.size THEN
        INSERT INTO log.checkpoints VALUES (p_origin, p_size, p_root, p_note);
    ELSIF p_size = v_last.size AND p_root = v_last.root
        AND substr(p_note, 1, length(v_last.note)) = v_last.note THEN
        UPDATE log.checkpoints c SET note = p_note
        WHERE c.origin = p_origin AND c.size = p_size AND c.note <> p_note;
    ELSE
        RAISE EXCEPTION 'the latest checkpoint of % is of % entries with root %: this one, of % with root %, does not follow it',
            p_origin, v_last.size, encode(v_last.root, 'hex'), p_size, encode(p_root, 'hex') USING ERRCODE = 'TP005';
    END IF;
END $$;

-- Keep hashes of subtrees. One that is kept already must be the same.
CREATE FUNCTION log.log_keep_subtrees(p_origin text, p_levels smallint[], p_indexes bigint[], p_hashes bytea[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_other record;
BEGIN
    INSERT INTO log.subtrees
    SELECT p_origin, level, index, hash FROM unnest(p_levels, p_indexes, p_hashes) AS given(level, index, hash)
    ORDER BY level, index -- two keepers lock in one order
    ON CONFLICT DO NOTHING;
    SELECT s.level, s.index INTO v_other
    FROM unnest(p_levels, p_indexes, p_hashes) AS given(level, index, hash)
    CROSS JOIN LATERAL (SELECT * FROM log.subtrees k
        WHERE k.origin = p_origin AND k.level = given.level AND k.index = given.index OFFSET 0) s
    WHERE s.hash <> given.hash LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'another hash is kept for subtree % of level % of %: verify the log',
            v_other.index, v_other.level, p_origin USING ERRCODE = 'TP005';
    END IF;
END $$;

REVOKE ALL ON FUNCTION log.refuse_other_checkpoint() FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_publish(text, bigint, bytea, bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION log.log_keep_subtrees(text, smallint[], bigint[], bytea[]) FROM PUBLIC;
-- To the login, not to the appenders: the gateway appends, and does not publish.
GRANT EXECUTE ON FUNCTION log.log_publish(text, bigint, bytea, bytea) TO triplane_operator;
GRANT EXECUTE ON FUNCTION log.log_keep_subtrees(text, smallint[], bigint[], bytea[]) TO triplane_operator;
GRANT SELECT ON log.checkpoints, log.subtrees TO triplane_log_reader;
