"""A real Postgres with a tablespace on a disk of a few megabytes: a tmpfs that only this server sees.

The server enters a user and a mount namespace of its own, in which everybody may mount (user_namespaces(7)): neither
root nor a spare disk is needed, and nothing is left on the machine. Where that cannot be, it raises ``Unavailable``.
"""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from tests.conftest import Database, PostgresServer
from triplane.adapters.postgres.connection import ensure_passwords
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.adapters.postgres.migrate import migrate
from triplane.adapters.postgres.roles import ensure_database

TEMPLATE = "triplane_template"
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


class SmallDiskPostgres(EmbeddedPostgres):
    """The embedded server; ``small`` is its small disk."""

    def __init__(self, folder: Path, password: str, megabytes: int) -> None:
        super().__init__(folder, password)
        self.small = folder / "small"
        self._megabytes = megabytes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def preexec(self) -> Callable[[], None]:
        enter, uid, gid = super().preexec(), os.geteuid(), os.getegid()
        target, options = os.fsencode(self.small), f"size={self._megabytes}m,mode=0700".encode()

        def enter_and_mount() -> None:
            if enter is not None:
                enter()
            else:
                self._call("unshare", _CLONE_NEWUSER)
                for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                    Path(f"/proc/self/{name}").write_text(line)
            self._call("unshare", _CLONE_NEWNS)
            self._call("mount", b"tmpfs", target, b"tmpfs", 0, options)

        return enter_and_mount

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)


@contextmanager
def small_disk_database(megabytes: int) -> Iterator[Database]:
    """A migrated database, all of whose files lie on the small disk."""
    home = Path(tempfile.mkdtemp(prefix="tri-sd-"))
    passwords = ensure_passwords(home / "secrets")
    embedded = SmallDiskPostgres(home / "pg", passwords["superuser"], megabytes)
    embedded.small.mkdir(parents=True)
    try:
        embedded.start()
        origin = migrate(embedded.dsn, passwords, database=TEMPLATE)
        with psycopg.connect(embedded.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(embedded.small))))
            ensure_database(admin, "small", TEMPLATE)
            admin.execute("ALTER DATABASE small SET TABLESPACE small")
        yield Database(PostgresServer(embedded, home, passwords, origin), "small", origin)
    finally:
        embedded.stop()
        shutil.rmtree(home, ignore_errors=True)
