"""What the session store keeps beside the sessions: whose a blob is, and how far consumers of the log have come."""

from typing import Final

from triplane.adapters.postgres.connection import translated
from triplane.adapters.postgres.sessiondatabase import SessionDatabase
from triplane.audit.digest import parse_digest
from triplane.domain.blob import check_blob_owner
from triplane.errors import NotFound

OWN_BLOB: Final = "INSERT INTO sessions.blob_owners (namespace, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING"
OWN_BLOB_OF_RUN: Final = """
WITH owned AS (
    INSERT INTO sessions.blob_owners (namespace, digest)
    SELECT s.namespace, %(digest)s FROM sessions.sessions s JOIN sessions.runs r ON r.session_uid = s.uid
    WHERE s.uid = %(uid)s AND r.run = %(run)s
    ON CONFLICT DO NOTHING RETURNING 1
)
UPDATE sessions.runs SET blob_octets = blob_octets + CASE WHEN EXISTS (SELECT FROM owned) THEN %(octets)s ELSE 0 END
WHERE session_uid = %(uid)s AND run = %(run)s RETURNING blob_octets
"""
OWNS_BLOB: Final = "SELECT 1 FROM sessions.blob_owners WHERE namespace = %s AND digest = %s"
BLOB_OWNED: Final = "SELECT 1 FROM sessions.blob_owners WHERE digest = %s LIMIT 1"
DISOWN_BLOB: Final = "DELETE FROM sessions.blob_owners WHERE digest = %s RETURNING namespace"

_TABLES: Final = ("sessions", "runs", "records", "blob_owners", "questions", "voids", "spent", "limits")
"""Every table that could name a blob. Not the accounts' tables: they hold hashes of tokens, and names of people."""
BLOB_REFERENCES: Final = " UNION ".join(
    # Whole rows as text: a column added later is looked at too.
    f"SELECT found[1] FROM sessions.{table} AS kept, "  # noqa: S608  # names from the tuple above
    "regexp_matches(kept::text, '(sha256:[0-9a-f]{64})', 'g') AS found"
    for table in _TABLES
)

CURSOR: Final = "SELECT seq FROM sessions.cursors WHERE name = %s"
SET_CURSOR: Final = """
INSERT INTO sessions.cursors AS c (name, seq) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET seq = excluded.seq WHERE c.seq < excluded.seq
"""


class Notes(SessionDatabase):
    """Owners of blobs, and cursors."""

    async def own_blob(self, namespace: str, digest: str) -> None:
        """See ``SessionStore.own_blob``."""
        check_blob_owner(namespace, digest)
        with translated(f"note that {digest} was put in namespace {namespace}"):
            async with self._pool.connection() as connection:  # one statement is a transaction by itself
                await connection.execute(OWN_BLOB, (namespace, digest))

    async def own_blob_of_run(self, session_uid: str, run: int, digest: str, octets: int) -> int:
        """See ``SessionStore.own_blob_of_run``."""
        parse_digest(digest)
        values = {"uid": session_uid, "run": run, "digest": digest, "octets": octets}
        with translated(f"note that run {run} of session {session_uid} has stored {digest}"):
            async with self._pool.connection() as connection:  # one statement is a transaction by itself
                row = await (await connection.execute(OWN_BLOB_OF_RUN, values)).fetchone()
        if row is None:
            raise NotFound(f"session {session_uid} has no run {run}: it was never permitted")
        return int(row[0])

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """See ``SessionStore.owns_blob``."""
        return await self._value(OWNS_BLOB, namespace, digest) is not None

    async def blob_owned(self, digest: str) -> bool:
        """See ``SessionStore.blob_owned``."""
        return await self._value(BLOB_OWNED, digest) is not None

    async def disown_blob(self, digest: str) -> frozenset[str]:
        """See ``SessionStore.disown_blob``."""
        async with self._transaction(f"forget where {digest} was put") as connection:
            gone = await (await connection.execute(DISOWN_BLOB, (digest,))).fetchall()
        return frozenset(row[0] for row in gone)

    async def blob_references(self) -> frozenset[str]:
        """See ``SessionStore.blob_references``. Reads every row: for the collector, not for a request."""
        return frozenset([row[0] for row in await self._rows(BLOB_REFERENCES)])

    async def cursor(self, name: str) -> int:
        """See ``SessionStore.cursor``."""
        found = await self._value(CURSOR, name)
        return -1 if found is None else int(found)

    async def set_cursor(self, name: str, seq: int) -> None:
        """See ``SessionStore.set_cursor``."""
        async with self._transaction(f"move the cursor {name}") as connection:
            await connection.execute(SET_CURSOR, (name, max(seq, -1)))
