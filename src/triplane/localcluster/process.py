"""Processes that outlive the command that started them, and are never mistaken for another.

A pid alone does not name a process: after it ends, the kernel gives the number to a stranger. So a pidfile
holds the pid, its start time (proc(5), ``/proc/<pid>/stat`` field 22, clock ticks since boot) and the boot
id; a signal is sent through a pidfd (pidfd_open(2)) whose process was compared with that record after it was
opened. What cannot be matched is not signalled.

Every process also carries ``TRIPLANE_HOME`` and ``SUPERVISED_AS`` in its environment: one whose starter was
killed before it wrote the pidfile, and whatever a process leaves behind, is found by these marks.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from triplane.errors import Unavailable
from triplane.localcluster.files import exclusive, private_directory, read_json, write_private

Probe = Callable[[], Awaitable[bool]]
"""Asks once whether a process serves; never raises."""

_POLL_SECONDS = 0.05
_LOG_LIMIT = 16 * 2**20
"""A log larger than this is set aside as ``<name>.log.1`` when its process starts again."""
_MARKS = ("TRIPLANE_HOME", "SUPERVISED_AS")
_INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from every other that ever had its pid."""

    pid: int
    started: int
    """Clock ticks since boot."""
    boot: str
    """The kernel's boot id."""


def _stat(pid: int) -> list[str] | None:
    """Fields 3 (state) and later of ``/proc/<pid>/stat``; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the command name before it may contain anything


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or only a zombie."""
    if (fields := _stat(pid)) is None or fields[0] in "ZX":
        return None
    return Identity(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def age_seconds(identity: Identity) -> float:
    """How long ago it was started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - identity.started / os.sysconf("SC_CLK_TCK")


def reap(pid: int) -> None:
    """Collect ``pid``'s exit status if it is an ended child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_alive(identity: Identity) -> bool:
    """True while exactly this process runs."""
    reap(identity.pid)
    return identify(identity.pid) == identity


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False, and nobody signalled, when it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _session(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


def session_members(leader: Identity) -> list[Identity]:
    """Living processes of the session that ``leader`` began (setsid(2)), itself left out."""
    members = []
    for pid in _pids():
        if pid == leader.pid or _session(pid) != leader.pid:
            continue
        member = identify(pid)
        if member is not None and member.started >= leader.started:
            members.append(member)
    return members


async def end(identity: Identity, *, grace: float, first: signal.Signals = signal.SIGTERM) -> bool:
    """TERM (or ``first``), ``grace`` seconds, KILL; returns when the process and its session are verified gone.

    False if it was not running. Raises ``Unavailable`` if it survives KILL for 10 s (uninterruptible sleep).
    """
    if not is_alive(identity):
        return False
    send(identity, first)
    # A stopped process would never see TERM.
    send(identity, signal.SIGCONT)
    await _wait_gone([identity], grace)
    # The leader was alive a moment ago, so this session id cannot belong to strangers yet.
    everyone = [identity, *session_members(identity)]
    for process in everyone:
        send(process, signal.SIGKILL)
    if not await _wait_gone(everyone, 10.0):
        raise Unavailable(f"process {identity.pid} does not end after SIGKILL; see `ps -o stat,wchan {identity.pid}`")
    return True


async def _wait_gone(processes: Sequence[Identity], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def marks() -> dict[str, str]:
    """The marks in our own environment, for a child that is given an environment of its own."""
    return {name: os.environ[name] for name in _MARKS if name in os.environ}


def inherited_environment(names: Sequence[str] = _INHERITED) -> dict[str, str]:
    """The few variables a child takes over from us; everything else it is given on purpose."""
    return {name: os.environ[name] for name in names if name in os.environ}


class ManagedProcess:
    """One named background process of an installation: pidfile, log file, own session.

    ``argv[0]`` must be an absolute path. For finding and stopping a process, ``argv`` does not matter.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        home: Path,
        env: Mapping[str, str] | None = None,
        grace: float = 10.0,
        stop_signal: signal.Signals = signal.SIGTERM,
        release: str = "",
    ) -> None:
        """``release`` says which program the command line means, where the command line does not."""
        self.name = name
        self.argv = tuple(argv)
        self.env = {**(env or {}), "TRIPLANE_HOME": str(home), "SUPERVISED_AS": name}
        self.grace = grace
        self.stop_signal = stop_signal
        self.release = release
        self.pidfile = home / "run" / f"{name}.pid"
        self.log = home / "run" / "logs" / f"{name}.log"

    @property
    def fingerprint(self) -> str:
        """Changes when the program, the command line or the given environment does: then a restart is due."""
        started_with = [self.release, self.argv, sorted(self.env.items())]
        return hashlib.sha256(json.dumps(started_with).encode()).hexdigest()

    def running(self) -> Identity | None:
        """The living process of this name, whoever started it; None when there is none."""
        identity = recorded(self.pidfile)
        if identity is not None and is_alive(identity):
            return identity
        return self._unrecorded()

    def is_current(self) -> bool:
        """The running process was started with this very command line and environment."""
        return self.running() is not None and read_json(self.pidfile).get("fingerprint") == self.fingerprint

    def start(self) -> Identity:
        """Start it detached, in its own session, output appended to the log; no-op while it runs. Two callers
        never start it twice. Raises ``Unavailable`` when the program cannot be executed."""
        private_directory(self.pidfile.parent)
        with exclusive(self.pidfile.with_name(f".{self.name}.starting")):
            return self.running() or self._spawn()

    def _spawn(self) -> Identity:
        private_directory(self.log.parent)
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT:
                self.log.replace(self.log.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawn(
                self.argv[0],
                self.argv,
                {**inherited_environment(), **self.env},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
            )
        except OSError as error:
            raise Unavailable(f"cannot start {self.name}: {self.argv[0]}: {error.strerror}") from error
        identity = identify(pid)
        if identity is None:
            reap(pid)
            raise self.failure("ended at once")
        self._record(identity)
        return identity

    async def wait_ready(self, probe: Probe, *, seconds: float) -> None:
        """Return when the probe says yes. Raises ``Unavailable``, quoting the log, when the process ends
        before or ``seconds`` have passed."""
        deadline = time.monotonic() + seconds
        while not await probe():
            if self.running() is None:
                raise self.failure("ended before it was ready")
            if time.monotonic() >= deadline:
                raise self.failure(f"was not ready within {seconds:.0f} s")
            await asyncio.sleep(_POLL_SECONDS * 2)

    async def stop(self, *, at_once: bool = False) -> bool:
        """End it with all it started and wait until they are gone; False if nothing of it was running.
        ``at_once`` leaves it no time to clean up."""
        identity = self.running()
        first, grace = (signal.SIGKILL, 10.0) if at_once else (self.stop_signal, self.grace)
        ended = identity is not None and await end(identity, grace=grace, first=first)
        left = self._marked()
        for process in left:
            send(process, signal.SIGKILL)
        if not await _wait_gone(left, 10.0):
            raise Unavailable(f"processes of {self.name} do not end after SIGKILL: {[p.pid for p in left]}")
        self.pidfile.unlink(missing_ok=True)
        return ended or bool(left)

    def failure(self, what: str) -> Unavailable:
        """An error that quotes the end of the log."""
        return Unavailable(f"{self.name} {what}; its log is {self.log}, the last lines:\n{tail(self.log)}")

    def _record(self, identity: Identity) -> None:
        private_directory(self.pidfile.parent)
        write_private(self.pidfile, json.dumps({**asdict(identity), "fingerprint": self.fingerprint}) + "\n")

    def _unrecorded(self) -> Identity | None:
        """Our process whose starter died before it wrote the pidfile: the oldest marked session leader."""
        leaders = [process for process in self._marked() if _session(process.pid) == process.pid]
        if not leaders:
            return None
        oldest = min(leaders, key=lambda process: process.started)
        self._record(oldest)
        return oldest

    def _marked(self) -> list[Identity]:
        """Every living process of ours with the marks of this home and name."""
        marks = {f"{name}={self.env[name]}".encode() for name in _MARKS}
        found = []
        for pid in _pids():
            identity = identify(pid)
            try:
                folder = Path(f"/proc/{pid}")
                if identity is None or folder.stat().st_uid != os.geteuid():
                    continue
                environment = (folder / "environ").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if marks <= set(environment.split(b"\0")) and identify(pid) == identity:
                found.append(identity)
        return found


def recorded(pidfile: Path) -> Identity | None:
    """What a pidfile says; None when there is none or it is not whole."""
    record = read_json(pidfile)
    try:
        return Identity(int(record["pid"]), int(record["started"]), str(record["boot"]))
    except (KeyError, TypeError, ValueError):
        return None


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(line[:400] for line in text.splitlines()[-lines:])
