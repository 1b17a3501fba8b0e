-- The graph at scale: pages in the order of an index, traversal on the server, a rebuilt graph set aside.

-- Pages of label queries come in this order; with the generation, the newest of each is found in the index too.
CREATE INDEX resources_by_place ON graph.resources (kind, namespace, name, uid, generation);
DROP INDEX graph.resources_by_name;

-- A list of pending entries would make every look-up by label read it whole, and the planner shun the index for it.
ALTER INDEX graph.resources_by_labels SET (fastupdate = off);
SELECT gin_clean_pending_list('graph.resources_by_labels');

-- Where `triplane graph rebuild` puts what it makes until it is whole. Unlogged: a crash means beginning anew.
CREATE UNLOGGED TABLE graph.new_resources (LIKE graph.resources INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (uid, generation));
CREATE UNLOGGED TABLE graph.new_edges (LIKE graph.edges INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (source, kind, target, key));
CREATE UNLOGGED TABLE graph.new_gone (LIKE graph.gone INCLUDING ALL);
GRANT SELECT, INSERT, UPDATE, DELETE ON graph.new_resources, graph.new_edges, graph.new_gone TO triplane_graph_writer;

-- A traversal remembers what it has reached in a temporary table of its connection: neither side holds it in memory.
-- The functions are the owner's, so that nobody who traverses needs the right to make tables.
CREATE FUNCTION graph.walk_begin(p_start text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    IF to_regclass('pg_temp.graph_walk') IS NULL THEN
        CREATE TEMPORARY TABLE graph_walk (
            n      bigint  PRIMARY KEY,
            id     text    COLLATE "C" NOT NULL UNIQUE,
            depth  integer NOT NULL,
            leaf   boolean NOT NULL,
            source text    COLLATE "C",
            kind   text    COLLATE "C",
            target text    COLLATE "C",
            key    text    COLLATE "C"
        ) ON COMMIT DELETE ROWS;
    END IF;
    DELETE FROM pg_temp.graph_walk;
    INSERT INTO pg_temp.graph_walk (n, id, depth, leaf) VALUES (0, p_start, 0, false);
END $$;

-- Whole levels, the frontier being the ends from io_first to io_last at io_depth, until p_batch more ends are reached,
-- or there is nothing more: then io_first is above io_last. Of kinds, null is any.
CREATE FUNCTION graph.walk_on(
    INOUT io_first bigint, INOUT io_last bigint, INOUT io_depth integer,
    p_outward text[], p_inward text[], p_leaves text[], p_namespaces text[],
    p_upto bigint, p_depth integer, p_limit bigint, p_batch bigint
) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    v_enough bigint := io_last + p_batch;
    v_new    bigint;
BEGIN
    WHILE io_first <= io_last AND io_depth < p_depth AND io_last < p_limit AND io_last < v_enough LOOP
        INSERT INTO pg_temp.graph_walk (n, id, depth, leaf, source, kind, target, key)
        SELECT io_last + row_number() OVER (ORDER BY seq, kind, far), far, io_depth + 1, leaf, source, kind, target, key
        FROM (
            SELECT DISTINCT ON (far) * FROM (
                SELECT e.target AS far, false AS leaf, e.source, e.kind, e.target, e.key, e.seq, e.data
                FROM pg_temp.graph_walk w CROSS JOIN LATERAL (
                    SELECT * FROM graph.edges o
                    WHERE o.source = w.id AND (p_outward IS NULL OR o.kind = ANY (p_outward)) AND o.seq <= p_upto OFFSET 0) e
                WHERE w.n BETWEEN io_first AND io_last AND NOT w.leaf AND coalesce(cardinality(p_outward), 1) > 0
                UNION ALL
                SELECT e.source, false, e.source, e.kind, e.target, e.key, e.seq, e.data
                FROM pg_temp.graph_walk w CROSS JOIN LATERAL (
                    SELECT * FROM graph.edges i
                    WHERE i.target = w.id AND (p_inward IS NULL OR i.kind = ANY (p_inward)) AND i.seq <= p_upto OFFSET 0) e
                WHERE w.n BETWEEN io_first AND io_last AND NOT w.leaf AND coalesce(cardinality(p_inward), 1) > 0
                UNION ALL
                SELECT e.source, true, e.source, e.kind, e.target, e.key, e.seq, e.data
                FROM pg_temp.graph_walk w CROSS JOIN LATERAL (
                    SELECT * FROM graph.edges l
                    WHERE l.target = w.id AND l.kind = ANY (p_leaves) AND l.seq <= p_upto OFFSET 0) e
                WHERE w.n BETWEEN io_first AND io_last AND NOT w.leaf AND cardinality(p_leaves) > 0
            ) met
            WHERE NOT EXISTS (SELECT 1 FROM pg_temp.graph_walk known WHERE known.id = met.far)
                AND (p_namespaces IS NULL OR graph.may_meet(met.far, met.data, p_namespaces, p_upto))
            ORDER BY far, leaf, seq, kind, source, target, key
        ) found
        ORDER BY seq, kind, far
        LIMIT p_limit - io_last;
        GET DIAGNOSTICS v_new = ROW_COUNT;
        io_first := io_last + 1;
        io_last := io_last + v_new;
        io_depth := io_depth + 1;
    END LOOP;
    IF io_depth >= p_depth OR io_last >= p_limit THEN
        io_first := io_last + 1;
    END IF;
END $$;

-- Whether an end, and the Task its edge was made for, may be met by who reads these namespaces.
CREATE FUNCTION graph.may_meet(p_far text, p_data jsonb, p_namespaces text[], p_upto bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (p_far LIKE 'sha256:%' OR EXISTS (
            SELECT 1 FROM graph.resources r
            WHERE r.uid = p_far AND r.namespace = ANY (p_namespaces) AND r.seq <= p_upto))
        AND (coalesce(p_data ->> 'task', '') = '' OR EXISTS (
            SELECT 1 FROM graph.resources r
            WHERE r.uid = p_data ->> 'task' AND r.namespace = ANY (p_namespaces) AND r.seq <= p_upto))
$$;

-- Ends after p_after in the order they were reached.
CREATE FUNCTION graph.walk_page(p_after bigint, p_most integer) RETURNS TABLE (
    n bigint, id text, depth integer, source text, kind text, target text, seq bigint, data jsonb, key text
) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT w.n, w.id, w.depth, e.source, e.kind, e.target, e.seq, e.data, e.key
    FROM (SELECT * FROM pg_temp.graph_walk s WHERE s.n > p_after ORDER BY s.n LIMIT p_most) w
    JOIN graph.edges e ON (e.source, e.kind, e.target, e.key) = (w.source, w.kind, w.target, w.key)
    ORDER BY w.n;
END $$;

-- Every other edge that was followed between what was reached, each once, by the end it was followed from.
CREATE FUNCTION graph.walk_rest(
    p_outward text[], p_inward text[], p_leaves text[], p_namespaces text[], p_upto bigint, p_depth integer
) RETURNS TABLE (
    id text, depth integer, source text, kind text, target text, seq bigint, data jsonb, key text
) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT f.id, f.depth, m.source, m.kind, m.target, m.seq, m.data, m.key
    FROM (
        SELECT w.n, w.source AS s, w.kind AS k, w.target AS t, w.key AS y, e.target AS far, true AS out, e.*
        FROM pg_temp.graph_walk w CROSS JOIN LATERAL (
            SELECT * FROM graph.edges o
            WHERE o.source = w.id AND (p_outward IS NULL OR o.kind = ANY (p_outward)) AND o.seq <= p_upto OFFSET 0) e
        WHERE w.depth < p_depth AND NOT w.leaf
        UNION ALL
        SELECT w.n, w.source, w.kind, w.target, w.key, e.source, false, e.*
        FROM pg_temp.graph_walk w CROSS JOIN LATERAL (
            SELECT * FROM graph.edges i
            WHERE i.target = w.id AND (p_inward IS NULL OR i.kind = ANY (p_inward) OR i.kind = ANY (p_leaves))
                AND i.seq <= p_upto OFFSET 0) e
        WHERE w.depth < p_depth AND NOT w.leaf
            AND (p_inward IS NULL OR cardinality(p_inward) > 0 OR cardinality(p_leaves) > 0)
    ) m
    JOIN pg_temp.graph_walk f ON f.id = m.far
    WHERE (m.source, m.kind, m.target, m.key) IS DISTINCT FROM (m.s, m.k, m.t, m.y)
        AND (m.source, m.kind, m.target, m.key) IS DISTINCT FROM (f.source, f.kind, f.target, f.key)
        AND (m.out OR NOT ((p_outward IS NULL OR m.kind = ANY (p_outward)) AND f.depth < p_depth AND NOT f.leaf))
        AND (p_namespaces IS NULL OR graph.may_meet(m.far, m.data, p_namespaces, p_upto))
    ORDER BY m.n, m.seq, m.kind, m.far, m.key;
END $$;

REVOKE ALL ON FUNCTION graph.walk_begin, graph.walk_on, graph.may_meet, graph.walk_page, graph.walk_rest FROM PUBLIC;
GRANT EXECUTE ON FUNCTION graph.walk_begin, graph.walk_on, graph.walk_page, graph.walk_rest TO triplane_graph_reader;
