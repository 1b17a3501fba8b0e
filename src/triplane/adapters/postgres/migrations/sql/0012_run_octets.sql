-- Octets of the blobs a run has stored that its namespace did not have: what its quota is held against.

ALTER TABLE sessions.runs ADD COLUMN blob_octets bigint NOT NULL DEFAULT 0 CHECK (blob_octets >= 0);
