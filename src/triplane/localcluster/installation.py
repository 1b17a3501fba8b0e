"""``up``, ``down`` and ``status`` of a whole installation, as the command line calls them.

``up`` builds in the foreground, so that Ctrl-C reaches the compilers, then detaches the supervisor and follows its
account of itself until everything is ready.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from triplane.errors import Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.build import Progress, ensure_binaries
from triplane.localcluster.controlplane import ComponentStatus, LocalCluster
from triplane.localcluster.files import lock, private_directory
from triplane.localcluster.install import grant
from triplane.localcluster.kind import ensure_kind_cluster
from triplane.localcluster.process import ManagedProcess
from triplane.localcluster.release import release
from triplane.localcluster.services import services
from triplane.localcluster.state import Phase, SupervisorState, read_state
from triplane.localcluster.supervisor import stop_all
from triplane.localcluster.webhook import is_replica
from triplane.settings import Settings
from triplane.wiring import check_outside

_FOLLOW_SECONDS = 0.1
_SUPERVISOR_GRACE = 90.0
"""Longer than all its children's graces together."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOT_PASSED = frozenset({"home", "kubeconfig", "token"})


class ClusterChoice(StrEnum):
    """Where Triplane's kinds live (``CLUSTER=``)."""

    LOCAL = "local"
    """A control plane built and run here."""
    CURRENT = "current"
    """The cluster of the given kubeconfig, whose user must be an administrator."""
    KIND = "kind"
    """A kind cluster named ``triplane``, made where it is missing; needs kind and Docker."""


@dataclass(frozen=True, slots=True)
class InstallationStatus:
    """What runs now."""

    supervisor: SupervisorState | None
    """None when no supervisor runs."""
    processes: tuple[ComponentStatus, ...]

    @property
    def ready(self) -> bool:
        """The supervisor is through with its start and every process serves."""
        return (
            self.supervisor is not None
            and self.supervisor.phase is Phase.READY
            and all(process.ready for process in self.processes)
        )


async def up(
    settings: Settings,
    *,
    cluster: ClusterChoice = ClusterChoice.LOCAL,
    namespaces: Sequence[str] = (),
    fsync: bool = True,
    progress: Progress = lambda _line: None,
) -> None:
    """Start everything that does not run and return when all of it serves.

    ``namespaces`` are made where missing and opened to alice and bob, as ``default`` is. What runs already is left
    alone. Cancelled (Ctrl-C) or failed, nothing is left running, compilers included. Raises ``Unavailable`` or
    ``InvalidInput`` with the reason and the log to read.
    """
    check_outside(settings)
    private_directory(settings.home)
    private_directory(settings.run)
    async with _cancelled_by_termination(), _exclusive(settings):
        try:
            kubeconfig = await _administrator(settings, cluster, progress)
            if kubeconfig is None:
                await ensure_binaries(settings.cache, progress)
            await _start_supervisor(settings, kubeconfig, fsync, progress)
            async with await _connect(settings, kubeconfig) as server:
                for namespace in namespaces:
                    await grant(server, namespace)
        except BaseException:
            await asyncio.shield(_stop(settings, progress))
            raise


async def down(settings: Settings, progress: Progress = lambda _line: None) -> None:
    """Stop everything of this home and return when each process is gone; the data stays."""
    if not settings.run.exists():  # one stat
        return
    async with _exclusive(settings):
        await _stop(settings, progress)


async def status(settings: Settings) -> InstallationStatus:
    """What runs and serves now; changes nothing."""
    if not settings.run.exists():  # one stat
        return InstallationStatus(None, ())
    processes = list(await LocalCluster(settings).status())
    local = bool(processes)
    for service in services(settings):
        if is_replica(service.name) and not local:
            continue  # another cluster's API server could not reach it: it does not run
        identity = service.process.running()
        processes.append(
            ComponentStatus(
                service.name,
                identity.pid if identity else None,
                identity is not None and await service.ready(),
                service.process.log,
            )
        )
    return InstallationStatus(_state(settings), tuple(processes))


async def _stop(settings: Settings, progress: Progress) -> None:
    with _undisturbed():
        await _stop_everything(settings, progress)


async def _stop_everything(settings: Settings, progress: Progress) -> None:
    if await _supervisor(settings, None, fsync=True).stop():
        progress("supervisor and everything it kept stopped")
    # Whatever a killed supervisor left behind.
    await stop_all(settings, progress)


# -- the supervisor, seen from outside ---------------------------------------------------------------


def _supervisor(settings: Settings, kubeconfig: Path | None, *, fsync: bool) -> ManagedProcess:
    arguments = ["--release", release()]
    if kubeconfig is not None:
        arguments += ["--kubeconfig", str(kubeconfig)]
    if not fsync:
        arguments.append("--no-fsync")
    return ManagedProcess(
        "supervisor",
        [sys.executable, "-P", "-m", "triplane.localcluster.supervisor", *arguments],
        home=settings.home,
        env={**_passed_settings(settings), **_proxies()},
        grace=_SUPERVISOR_GRACE,
    )


def _passed_settings(settings: Settings) -> dict[str, str]:
    """Our settings, as the environment the supervisor reads them from."""
    passed = {}
    # The cache is told always: its default hangs on variables the supervisor does not see.
    for name in sorted((settings.model_fields_set | {"cache"}) - _NOT_PASSED):
        value = getattr(settings, name)
        if value is not None:
            text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
            passed[f"TRIPLANE_{name.upper()}"] = text
    return passed


def _proxies() -> dict[str, str]:
    """A cluster elsewhere may be reachable only through these; loopback never goes through them."""
    names = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}


def _state(settings: Settings) -> SupervisorState | None:
    identity = _supervisor(settings, None, fsync=True).running()
    state = read_state(settings.run / "supervisor.json")
    return state if identity is not None and state is not None and state.pid == identity.pid else None


async def _start_supervisor(settings: Settings, kubeconfig: Path | None, fsync: bool, progress: Progress) -> None:
    process = _supervisor(settings, kubeconfig, fsync=fsync)
    if process.running() is not None and not process.is_current():
        progress("program or settings have changed: a new supervisor takes over")
        await process.stop(at_once=True)
    before = _state(settings)
    pid = process.start().pid
    told = len(before.progress) if before is not None else 0
    while True:
        state = read_state(settings.run / "supervisor.json")
        if state is not None and state.pid == pid:
            for line in state.progress[told:]:
                progress(line)
            told = max(told, len(state.progress))
            if state.phase is Phase.READY:
                return
            if state.phase is Phase.FAILED:
                raise Unavailable(state.message)
        if process.running() is None and not (state and state.pid == pid and state.phase is Phase.FAILED):
            raise process.failure("ended before everything was ready")
        await asyncio.sleep(_FOLLOW_SECONDS)


# -- which cluster -----------------------------------------------------------------------------------


async def _administrator(settings: Settings, cluster: ClusterChoice, progress: Progress) -> Path | None:
    """An administrator's kubeconfig of somebody else's cluster; None for the local one."""
    if cluster is ClusterChoice.LOCAL:
        return None
    if cluster is ClusterChoice.KIND:
        return await ensure_kind_cluster(settings.secrets / "kubeconfig-kind", progress)
    if settings.kubeconfig is not None:
        return settings.kubeconfig
    return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


async def _connect(settings: Settings, kubeconfig: Path | None) -> ApiServer:
    if kubeconfig is None:
        return LocalCluster(settings).api_server()
    return await ApiServer.from_kubeconfig(kubeconfig)


# -- one at a time, and stoppable --------------------------------------------------------------------


@asynccontextmanager
async def _exclusive(settings: Settings) -> AsyncIterator[None]:
    """One ``up`` or ``down`` at a time for this home."""
    descriptor = await lock(settings.run / "up.lock")
    try:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _cancelled_by_termination() -> AsyncIterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, where this is the main thread."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}  # nohup(1)

    def cancel_once() -> None:
        # make(1) hands on a SIGTERM that its whole group was sent: one wish, two signals.
        if not task.cancelling():
            task.cancel()

    with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: its owner decides
        for number in before:
            loop.add_signal_handler(number, cancel_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave half of it running: stopping takes bounded time anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
