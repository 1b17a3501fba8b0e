-- The graph as a projection of the log: parallel edges, tombstones that no late row can undo, label selectors in full.

ALTER TABLE graph.edges ADD COLUMN key text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE graph.edges DROP CONSTRAINT edges_pkey;
ALTER TABLE graph.edges ADD PRIMARY KEY (source, kind, target, key);

CREATE TABLE graph.gone (
    uid text   COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL
);
INSERT INTO graph.gone SELECT uid, max(seq) FROM graph.resources WHERE gone GROUP BY uid;

-- The default operator class answers `labels ? key` as well as `labels @> pair`.
DROP INDEX graph.resources_by_labels;
CREATE INDEX resources_by_labels ON graph.resources USING gin (labels);

GRANT SELECT, INSERT, UPDATE, DELETE ON graph.gone TO triplane_graph_writer;
GRANT SELECT ON graph.gone TO triplane_graph_reader;
