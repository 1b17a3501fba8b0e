-- Every resource generation seen and the edges between them, kept after the resource is gone.

CREATE TABLE graph.resources (
    uid        text    COLLATE "C" NOT NULL,
    generation bigint  NOT NULL,
    kind       text    COLLATE "C" NOT NULL,
    namespace  text    COLLATE "C" NOT NULL,
    name       text    COLLATE "C" NOT NULL,
    labels     jsonb   NOT NULL,
    spec       jsonb   NOT NULL,
    requester  text,
    seq        bigint  NOT NULL,
    gone       boolean NOT NULL,
    PRIMARY KEY (uid, generation)
);
CREATE INDEX resources_by_name ON graph.resources (kind, namespace, name);
CREATE INDEX resources_by_labels ON graph.resources USING gin (labels jsonb_path_ops);

CREATE TABLE graph.edges (
    source text   COLLATE "C" NOT NULL,
    kind   text   COLLATE "C" NOT NULL,
    target text   COLLATE "C" NOT NULL,
    seq    bigint NOT NULL,
    data   jsonb  NOT NULL,
    PRIMARY KEY (source, kind, target)
);
CREATE INDEX edges_by_target ON graph.edges (target, kind);

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA graph TO triplane_graph_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA graph TO triplane_graph_reader;
