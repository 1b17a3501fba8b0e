"""The two database steps of ``triplane up``, each a process of its own so that the supervisor stays small.

``serve`` prepares the embedded Postgres and becomes it (execve(2)): the supervisor's child *is* the server.
``migrate`` brings the schema up to date, makes the service tokens and enrols their hashes.
"""

import asyncio
import hashlib
import os
import secrets
import sys

from triplane.adapters.postgres.accountstore import PostgresAccountStore
from triplane.adapters.postgres.connection import dsn, ensure_passwords, make_pool, open_pool
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.adapters.postgres.migrate import migrate
from triplane.errors import TriplaneError
from triplane.localcluster.files import private_directory, write_private
from triplane.localcluster.process import marks
from triplane.settings import Settings

SERVICES = ("operator", "runner", "admission")
"""Services with a token of their own: its name is also its role."""


def serve(settings: Settings) -> None:
    """Become the Postgres server of this home; returns only by raising."""
    server = EmbeddedPostgres(settings.pg, ensure_passwords(settings.secrets)["superuser"])
    server.ensure_initialised()
    server.clear_stale_locks()
    command, environment = server.command(), {**server.environment(), **marks()}
    os.chdir(server.folder)
    if enter := server.preexec():
        enter()
    os.execve(command[0], command, environment)  # noqa: S606  # the point of this function


async def prepare(settings: Settings) -> str:
    """Migrate, enrol the service tokens, return the log's origin; repeating it changes nothing."""
    origin = await asyncio.to_thread(_migrate, settings)
    pool = make_pool(dsn(settings, "gateway"), name="triplane-up", largest=1)
    try:
        await open_pool(pool)
        # The key hashes usernames, and no username is looked up here.
        accounts = PostgresAccountStore(pool, secrets.token_bytes(32))
        for name in SERVICES:
            token = service_token(settings, name)
            await accounts.put_token(name, name, hashlib.sha256(token.encode()).hexdigest())
    finally:
        await pool.close()
    return origin


def service_token(settings: Settings, name: str) -> str:
    """The token in ``secrets/token_<name>`` (0600), made where it is missing."""
    path = private_directory(settings.secrets) / f"token_{name}"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


def _migrate(settings: Settings) -> str:
    passwords = ensure_passwords(settings.secrets)
    if settings.database_host is None:
        administrator = EmbeddedPostgres(settings.pg, passwords["superuser"]).dsn
    else:
        # Somebody else's server: its administrator has made the roles (docs/how-to), we are the migrator.
        administrator = dsn(settings, "migrator")
        if settings.database_password is not None:
            passwords["migrator"] = settings.database_password.get_secret_value()
    return migrate(administrator, passwords, database=settings.database_name, origin_host=settings.origin_host)


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["serve"]:
            serve(Settings())
        elif sys.argv[1:] == ["migrate"]:
            print(f"log {asyncio.run(prepare(Settings()))}", flush=True)
        else:
            sys.exit("usage: python -m triplane.localcluster.database serve|migrate")
    except TriplaneError as failure:
        sys.exit(str(failure))
