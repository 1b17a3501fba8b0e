"""Processes that outlive the command that started them, and are never mistaken for another: a pidfile holds the
``Identity`` of each.

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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from triplane.errors import Unavailable
from triplane.localcluster.files import exclusive, private_directory, read_json, write_private
from triplane.localcluster.identity import (
    POLL_SECONDS,
    Identity,
    end,
    identify,
    is_alive,
    is_ending,
    pids,
    reap,
    send,
    session_of,
    wait_gone,
)

Probe = Callable[[], Awaitable[bool]]
"""Asks once whether a process serves; never raises."""

_END_SECONDS = 10.0
_LOG_LIMIT = 16 * 2**20
"""A log larger than this is set aside as ``<name>.log.1`` when its process starts again."""
_MARKS = ("TRIPLANE_HOME", "SUPERVISED_AS")
_INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER")


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
        """The living process of this name, whoever started it; None when there is none, or it is ending."""
        identity = self._living()
        return None if identity is None or is_ending(identity) else identity

    def is_current(self) -> bool:
        """The running process was started with this very command line and environment."""
        return self.running() is not None and read_json(self.pidfile).get("fingerprint") == self.fingerprint

    def start(self) -> Identity:
        """Start it detached, in its own session, output appended to the log; no-op while it runs. Two callers
        never start it twice, and one that is ending is gone before the next begins. Raises ``Unavailable`` when the
        program cannot be executed, or the one before does not end."""
        private_directory(self.pidfile.parent)
        with exclusive(self.pidfile.with_name(f".{self.name}.starting")):
            return self.running() or self._spawn()

    def _spawn(self) -> Identity:
        self._await_end()
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
            await asyncio.sleep(POLL_SECONDS * 2)

    async def stop(self, *, at_once: bool = False) -> bool:
        """End it with all it started and wait until they are gone; False if nothing of it was running.
        ``at_once`` leaves it no time to clean up."""
        identity = self._living()
        first, grace = (signal.SIGKILL, 10.0) if at_once else (self.stop_signal, self.grace)
        ended = identity is not None and await end(identity, grace=grace, first=first)
        left = self._marked()
        for process in left:
            send(process, signal.SIGKILL)
        if not await wait_gone(left, 10.0):
            raise Unavailable(f"processes of {self.name} do not end after SIGKILL: {[p.pid for p in left]}")
        self.pidfile.unlink(missing_ok=True)
        return ended or bool(left)

    def failure(self, what: str) -> Unavailable:
        """An error that quotes the end of the log."""
        return Unavailable(f"{self.name} {what}; its log is {self.log}, the last lines:\n{tail(self.log)}")

    def _living(self) -> Identity | None:
        identity = recorded(self.pidfile)
        return identity if identity is not None and is_alive(identity) else self._unrecorded()

    def _await_end(self) -> None:
        """Wait until the one before, which is ending, is gone."""
        before, deadline = recorded(self.pidfile), time.monotonic() + _END_SECONDS
        while before is not None and is_alive(before):
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"{self.name} does not end, process {before.pid}: see `ps -o stat,wchan {before.pid}`"
                )
            time.sleep(POLL_SECONDS)

    def _record(self, identity: Identity) -> None:
        private_directory(self.pidfile.parent)
        write_private(self.pidfile, json.dumps({**asdict(identity), "fingerprint": self.fingerprint}) + "\n")

    def _unrecorded(self) -> Identity | None:
        """Our process whose starter died before it wrote the pidfile: the oldest marked session leader."""
        leaders = [process for process in self._marked() if session_of(process.pid) == process.pid]
        if not leaders:
            return None
        oldest = min(leaders, key=lambda process: process.started)
        self._record(oldest)
        return oldest

    def _marked(self) -> list[Identity]:
        """Every living process of ours with the marks of this home and name."""
        marks = {f"{name}={self.env[name]}".encode() for name in _MARKS}
        found = []
        for pid in pids():
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
