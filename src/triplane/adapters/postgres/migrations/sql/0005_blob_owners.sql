-- Where a blob was put: a digest is a name, not a right. Namespaces come first in the key, for that is how it is asked.

CREATE TABLE sessions.blob_owners (
    namespace text COLLATE "C" NOT NULL CHECK (namespace <> ''),
    digest    text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, digest)
);
CREATE INDEX blob_owners_by_digest ON sessions.blob_owners (digest);

GRANT SELECT, INSERT, DELETE ON sessions.blob_owners TO triplane_sessions_writer;
GRANT SELECT ON sessions.blob_owners TO triplane_sessions_reader;
