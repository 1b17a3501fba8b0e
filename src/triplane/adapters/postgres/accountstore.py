"""Account store on Postgres. A username is found by its keyed hash; only an erasable row can be read back."""

import hashlib
import hmac
from secrets import token_hex
from typing import Final

from triplane.adapters.postgres.connection import Pool, translated
from triplane.errors import InvalidInput
from triplane.ports import PrincipalRow

_NAME: Final = "SELECT id, username, uid, salt FROM sessions.principal_names WHERE id = %s"


class PostgresAccountStore:
    """``triplane.ports.AccountStore`` in schema ``sessions``."""

    def __init__(self, pool: Pool, install_secret: bytes) -> None:
        """``pool`` is open and stays its opener's to close. ``install_secret`` keys the hash of usernames: at
        least 32 octets, the same for the life of the installation (another one gives everybody new
        principals)."""
        if len(install_secret) < 32:
            raise InvalidInput("the install secret must have at least 32 octets, or usernames can be guessed")
        self._pool = pool
        self._secret = install_secret

    async def principal(self, username: str, uid: str) -> PrincipalRow:
        """See ``AccountStore.principal``. A user whose row was erased gets the old id and a new row."""
        key = hmac.digest(self._secret, username.encode(), hashlib.sha256)
        with translated("look up a principal"):
            async with self._pool.connection() as connection, connection.transaction():
                made = await connection.execute(
                    "INSERT INTO sessions.principals (key, id) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING id",
                    (key, f"p-{token_hex(16)}"),
                )
                created = await made.fetchone()
                found = (
                    created
                    or await (
                        await connection.execute("SELECT id FROM sessions.principals WHERE key = %s", (key,))
                    ).fetchone()
                )
                assert found is not None  # nothing deletes principals
                await connection.execute(
                    "INSERT INTO sessions.principal_names VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    (found[0], username, uid, token_hex(32)),
                )
                row = await (await connection.execute(_NAME, found)).fetchone()
                assert row is not None  # inserted or found just now
        return PrincipalRow(row[0], row[1], row[2], row[3], created=created is not None)

    async def principal_by_id(self, principal_id: str) -> PrincipalRow | None:
        """See ``AccountStore.principal_by_id``. None also for one that was erased."""
        with translated("look up a principal"):
            async with self._pool.connection() as connection:
                row = await (await connection.execute(_NAME, (principal_id,))).fetchone()
        return None if row is None else PrincipalRow(row[0], row[1], row[2], row[3], created=False)

    async def put_token(self, name: str, role: str, sha256: str) -> None:
        """See ``AccountStore.put_token``. Raises ``Conflict`` when another name has this very token."""
        with translated(f"enrol the token of {name}"):
            async with self._pool.connection() as connection:
                await connection.execute(
                    "INSERT INTO sessions.tokens (name, role, sha256) VALUES (%s, %s, %s)"
                    " ON CONFLICT (name) DO UPDATE SET role = excluded.role, sha256 = excluded.sha256",
                    (name, role, sha256),
                )

    async def token_role(self, sha256: str) -> tuple[str, str] | None:
        """See ``AccountStore.token_role``."""
        with translated("look up a token"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute("SELECT name, role FROM sessions.tokens WHERE sha256 = %s", (sha256,))
                row = await cursor.fetchone()
        return None if row is None else (row[0], row[1])

    async def close(self) -> None:
        """Nothing to close: the pool is its opener's."""
