"""What the session store keeps beside the sessions: whose a blob is, and how far consumers of the log have come."""

from typing import Final

from triplane.adapters.postgres.connection import translated
from triplane.adapters.postgres.sessiondatabase import SessionDatabase
from triplane.domain.blob import check_blob_owner

OWN_BLOB: Final = "INSERT INTO sessions.blob_owners (namespace, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING"
OWNS_BLOB: Final = "SELECT 1 FROM sessions.blob_owners WHERE namespace = %s AND digest = %s"
DISOWN_BLOB: Final = "DELETE FROM sessions.blob_owners WHERE digest = %s"

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

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """See ``SessionStore.owns_blob``."""
        return await self._value(OWNS_BLOB, namespace, digest) is not None

    async def disown_blob(self, digest: str) -> None:
        """See ``SessionStore.disown_blob``."""
        async with self._transaction(f"forget where {digest} was put") as connection:
            await connection.execute(DISOWN_BLOB, (digest,))

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
