"""All of Triplane's processes, started and kept by the test itself, so that it can choose which one dies where.

What ``triplane up`` detaches a supervisor for, a thread does here: whatever ends is started again, but for the
process that a test holds.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.api import Api
from tests.e2e.stack import PROGRAMS
from triplane.localcluster.build import ensure_binaries
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.database import prepare
from triplane.localcluster.identity import Identity, is_alive, send, session_members
from triplane.localcluster.install import install
from triplane.localcluster.process import ManagedProcess
from triplane.localcluster.services import Service, services
from triplane.localcluster.webhook import address, install_webhook
from triplane.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LEASE_SECONDS = 8.0
"""Short, so that an outage is longer; long enough for a busy machine."""
LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.5
"""Between an end and the new start, as the supervisor's first backoff."""


class Installation:
    """Control plane, Postgres, gateway, operator and runner of one home."""

    def __init__(self, home: Path, *, lease_seconds: float) -> None:
        self.settings = Settings(home=home, programs=_programs(home / "programs"), lease_seconds=lease_seconds)
        self.cluster = LocalCluster(self.settings, fsync=False)
        self.services: dict[str, Service] = {service.name: service for service in services(self.settings)}
        self.restarted: list[str] = []
        """What ended though nobody held it, in order; the keeper started it again."""
        self._held: set[str] = set()
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Start everything and return when it serves."""
        asyncio.run(self._up())
        for name in ("admission", "postgres", "gateway", "operator", "runner"):
            self.services[name].process.start()
            self.wait_ready(name)
            if name == "postgres":
                asyncio.run(prepare(self.settings))
            elif name == "admission":
                asyncio.run(self._register())
        self._keeper.start()

    async def _up(self) -> None:
        await self.cluster.up()
        components = self.cluster.components(await ensure_binaries(self.settings.cache, lambda _line: None))
        self.services |= {process.name: Service(process, probe) for process, probe in components}
        async with self.cluster.api_server() as server:
            await install(server, self.settings.secrets)

    async def _register(self) -> None:
        async with self.cluster.api_server() as server:
            await install_webhook(server, address(self.settings.run), Certificates.of(self.settings).bundle())

    def stop(self) -> None:
        """Stop everything; the home is the caller's to remove."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for service in self.services.values():
            if (identity := service.process.running()) is not None:
                send(identity, signal.SIGCONT)
            asyncio.run(service.process.stop(at_once=True))
        asyncio.run(self.cluster.down())

    def api(self, person: str) -> Api:
        """The API server as ``admin``, ``alice`` or ``bob``."""
        return Api(self.settings.secrets / f"kubeconfig-{person}")

    # -- killing and holding ----------------------------------------------------------------------------

    @contextmanager
    def held(self, name: str) -> Iterator[ManagedProcess]:
        """Nobody but the caller starts this process again; afterwards it runs, without a failpoint."""
        process = self.services[name].process
        with self._lock:
            self._held.add(name)
        try:
            yield process
        finally:
            if process.env.pop("TRIPLANE_FAILPOINT", None) is not None:
                asyncio.run(process.stop(at_once=True))  # one that was not struck must not strike a later plan
            self._start_again(name)
            with self._lock:
                self._held.discard(name)

    @contextmanager
    def given(self, name: str, **env: str) -> Iterator[None]:
        """The process runs with these variables too; afterwards without them. Both are restarts."""
        process = self.services[name].process
        before = dict(process.env)
        self._replace(name, {**before, **env})
        try:
            self.wait_ready(name)
            yield
        finally:
            self._replace(name, before)
            self.wait_ready(name)

    def _replace(self, name: str, env: Mapping[str, str]) -> None:
        with self._lock:
            self._held.add(name)
        process = self.services[name].process
        asyncio.run(process.stop(at_once=True))
        process.env = dict(env)
        self._start_again(name)
        with self._lock:
            self._held.discard(name)

    def arm(self, name: str, failpoint: str) -> Identity:
        """Replace a held process by one that kills itself at ``failpoint``; returns when it serves."""
        process = self.services[name].process
        asyncio.run(process.stop())
        process.env["TRIPLANE_FAILPOINT"] = failpoint
        identity = process.start()
        self.wait_ready(name, while_alive=identity)
        return identity

    def struck(self, victim: Identity) -> bool:
        """True when an armed process has died by SIGKILL; fails when it ended in any other way."""
        try:
            # Looked at, not collected: how it ended is known once.
            ended = os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            raise AssertionError(f"process {victim.pid} ended before it was looked at") from None
        if ended is None:
            return False
        by_kill = (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGKILL)
        assert by_kill, f"process {victim.pid} was not killed: it ended with {ended.si_status}"
        return True

    def kill(self, name: str) -> None:
        """SIGKILL the process with all of its session: for Postgres, the postmaster and every backend."""
        identity = self.services[name].process.running()
        assert identity is not None, f"{name} does not run"
        group = [identity, *session_members(identity)]
        for member in group:
            send(member, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(is_alive(member) for member in group):
            assert time.monotonic() < deadline, f"{name} outlives SIGKILL"
            time.sleep(0.01)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """The process is stopped (SIGSTOP) for the time of the block."""
        identity = self.services[name].process.running()
        assert identity is not None, f"{name} does not run"
        assert send(identity, signal.SIGSTOP)
        try:
            yield
        finally:
            send(identity, signal.SIGCONT)

    def wait_ready(self, name: str, *, while_alive: Identity | None = None, seconds: float = 60.0) -> None:
        """Return when the service says that it serves, or when ``while_alive`` has ended."""
        service, deadline = self.services[name], time.monotonic() + seconds
        while not asyncio.run(service.ready()):
            if while_alive is not None and not is_alive(while_alive):
                return
            if time.monotonic() > deadline:
                raise service.process.failure(f"was not ready within {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)

    # -- keeping ----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            for name in self.services:
                with self._lock:
                    held = name in self._held
                if not held and self.services[name].process.running() is None:
                    self.restarted.append(name)
                    self._ending.wait(PAUSE_SECONDS)
                    self._start_again(name)

    def _start_again(self, name: str) -> None:
        with self._lock:
            process = self.services[name].process
            if process.running() is None:
                asyncio.run(process.stop())  # also what an ended one left behind
                process.start()


def _programs(folder: Path) -> Path:
    """The tests' programs and the examples' in one folder."""
    for source in (PROGRAMS, EXAMPLES / "programs"):
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def processes_in(sessions: Path) -> Sequence[int]:
    """Living processes in whose sight a workspace under ``sessions`` is mounted: harnesses and their sandboxes.

    A sandbox shows a workspace by bind mounts, whose root is in proc_pid_mountinfo(5), field 4; what runs outside a
    sandbox has the folder in its command line.
    """
    # Only the tail: field 4 counts from the root of the file system, wherever that is mounted.
    needle = f"{sessions.parents[1].name}/{sessions.parent.name}/{sessions.name}/"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            mounts = Path(f"/proc/{entry}/mountinfo").read_text()
            command = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
            if needle in mounts or needle in command:
                found.append(int(entry))
    return found


def read_json_lines(path: Path) -> Sequence[dict[str, Any]]:
    """The JSON lines of a process's log; others (a traceback, a cut last line) are passed over."""
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                lines.append(value)
    return lines
