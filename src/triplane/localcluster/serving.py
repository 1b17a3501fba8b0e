"""The embedded Postgres alone, for work on an installation that does not run. It is the very process that `triplane up`
keeps: whoever is killed in the middle leaves one that `up` and `down` know."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from triplane.adapters.postgres.connection import ensure_passwords
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.localcluster.files import private_directory
from triplane.localcluster.services import services
from triplane.settings import Settings


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str | None]:
    """An administrator's connection string to the server of this home, started if it does not run and then stopped
    again; None where the database is somebody else's. Raises ``Unavailable`` with the log to read."""
    if settings.database_host is not None:
        yield None
        return
    private_directory(settings.home)
    private_directory(settings.run)
    server = next(service for service in services(settings) if service.name == "postgres")
    ran = server.process.running() is not None
    if not ran:
        server.process.start()
    try:
        await server.process.wait_ready(server.ready, seconds=server.ready_seconds)
        yield EmbeddedPostgres(settings.pg, ensure_passwords(settings.secrets)["superuser"]).dsn
    finally:
        if not ran:
            await server.process.stop()
