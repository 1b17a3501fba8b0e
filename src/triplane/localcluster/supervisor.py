"""The one process `triplane up` detaches: it starts everything in order and starts again what ends.

It holds no state of its own. Whatever it started is found by pidfile and start time, so a new supervisor takes over
what a killed one left behind. Asked to end (SIGTERM), it stops everything in reverse order and leaves when each
is gone.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from triplane.errors import TriplaneError, Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.build import ensure_binaries
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.controlplane import LocalCluster, ensure_running
from triplane.localcluster.files import try_lock
from triplane.localcluster.install import install
from triplane.localcluster.process import inherited_environment, marks, tail
from triplane.localcluster.services import Service, services
from triplane.localcluster.state import Phase, SupervisorState, write_state
from triplane.localcluster.webhook import address, install_webhook, is_replica, keep_webhook, mark
from triplane.settings import Settings

_LOOK_SECONDS = 0.5
_LONGEST_BACKOFF = 30.0
_SETTLED_SECONDS = 60.0
"""A process that ran this long starts again at once."""
_ALIVE_SECONDS = 5.0
_ALIVE_MISSES = 6


class Supervisor:
    """Starts, keeps and stops the processes of one home."""

    def __init__(self, settings: Settings, *, kubeconfig: Path | None, fsync: bool = True, release: str = "") -> None:
        """``kubeconfig`` is an administrator's of an existing cluster; None: run the local control plane."""
        self._settings = settings
        self._kubeconfig = kubeconfig
        self._release = release
        self._cluster = LocalCluster(settings, fsync=fsync) if kubeconfig is None else None
        self._webhook = ""
        """Mark of the webhook configuration that is in force."""
        self._path = settings.run / "supervisor.json"
        self._state = SupervisorState(pid=os.getpid(), phase=Phase.STARTING)

    async def run(self) -> None:
        """Until cancelled, or until the start fails (``TriplaneError``); either way everything is stopped."""
        self._tell(phase=Phase.STARTING)
        try:
            kept = await self._start()
            self._tell(phase=Phase.READY)
            async with asyncio.TaskGroup() as tasks:
                for service in kept:
                    tasks.create_task(self._keep(service))
                if self._cluster is not None:
                    tasks.create_task(keep_webhook(self._settings, self._cluster, self._webhook))
        except asyncio.CancelledError:
            self._tell(phase=Phase.STOPPING)
            raise
        except TriplaneError as error:
            self._tell(phase=Phase.STOPPING, message=str(error))
            raise
        finally:
            await stop_all(self._settings, self._progress)
            self._tell(phase=Phase.FAILED if self._state.message else Phase.STOPPED)

    def end(self, task: asyncio.Task[None]) -> None:
        """Cancel ``run``, once: a second signal must not cut the cleaning up short."""
        if self._state.phase in {Phase.STARTING, Phase.READY} and not task.cancelling():
            task.cancel()

    async def _start(self) -> Sequence[Service]:
        """Control plane and database side by side, then what needs both."""
        listed = services(self._settings, self._release)
        database = [service for service in listed if service.name == "postgres"]
        async with _first_error(), asyncio.TaskGroup() as tasks:
            control_plane = tasks.create_task(self._start_cluster())
            tasks.create_task(self._start_database(database))
        rest = [service for service in listed if service not in database and not is_replica(service.name)]
        webhook = [service for service in listed if is_replica(service.name) and self._cluster is not None]
        async with _first_error(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._start_webhook(webhook))
            for service in rest:
                await self._start_service(service)
        return [*control_plane.result(), *database, *webhook, *rest]

    async def _start_service(self, service: Service) -> None:
        await ensure_running(service.process, service.ready, self._progress, seconds=service.ready_seconds)
        self._progress(f"{service.name} ready")

    async def _start_webhook(self, replicas: Sequence[Service]) -> None:
        """Only for the control plane here: the API server of another cluster cannot reach this machine's loopback;
        there launch alone decides. One after the other: the first finds the port that all share."""
        if self._cluster is None:
            return
        for service in replicas:
            await self._start_service(service)
        url, bundle = address(self._settings.run), Certificates.of(self._settings).bundle()
        async with self._cluster.api_server() as server:
            await install_webhook(server, url, bundle)
        self._webhook = mark(url, bundle)
        self._progress("admission in force")

    async def _start_cluster(self) -> Sequence[Service]:
        if self._cluster is None:
            async with await ApiServer.from_kubeconfig(self._kubeconfig) as server:
                await install(server, self._settings.secrets, progress=self._progress)
            return ()
        await self._cluster.up(self._progress)
        async with self._cluster.api_server() as server:
            await install(server, self._settings.secrets, progress=self._progress)
        binaries = await ensure_binaries(self._settings.cache, self._progress)
        return [Service(process, probe) for process, probe in self._cluster.components(binaries)]

    async def _start_database(self, database: Sequence[Service]) -> None:
        for service in database:
            await ensure_running(service.process, service.ready, self._progress, seconds=service.ready_seconds)
            self._progress("postgres ready")
        await self._step("migrate", "triplane.localcluster.database", "migrate")

    async def _step(self, name: str, module: str, *arguments: str) -> None:
        """Run one of our modules to its end; its lines are progress. Raises ``Unavailable`` if it fails."""
        log = self._settings.run / "logs" / f"{name}.log"
        with log.open("ab") as errors:
            step = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", module, *arguments),
                env={**inherited_environment(), **marks(), **_settings_of_ours()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        try:
            output, _ = await step.communicate()
        finally:
            if step.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    step.kill()
                await asyncio.shield(step.wait())
        if step.returncode != 0:
            raise Unavailable(f"{name} failed; its log is {log}, the last lines:\n{tail(log)}")
        for line in output.decode().splitlines():
            self._progress(f"{name}: {line}")

    async def _keep(self, service: Service) -> None:
        """Start the process again whenever it ends or hangs, ever more slowly if it ends soon."""
        backoff, began, misses, asked = 0.5, time.monotonic(), 0, time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if service.process.running() is not None:
                backoff = 0.5 if now - began > _SETTLED_SECONDS else backoff
                if service.alive is None or now - asked < _ALIVE_SECONDS:
                    continue
                asked = now
                misses = 0 if await service.alive() else misses + 1
                if misses < _ALIVE_MISSES:
                    continue
                self._progress(f"{service.name} does not answer; stopping it")
            self._progress(f"{service.name} ended; starting it again in {backoff:.1f} s")
            await asyncio.sleep(backoff)
            backoff, began, misses = min(backoff * 2, _LONGEST_BACKOFF), time.monotonic(), 0
            try:
                await service.process.stop()  # also what an ended one left behind
                service.process.start()
            except TriplaneError as error:
                self._progress(str(error))
            self._count(service.name)

    def _progress(self, line: str) -> None:
        print(line, flush=True)
        self._tell(progress=(*self._state.progress, line)[-200:])

    def _count(self, name: str) -> None:
        restarts = {**self._state.restarts, name: self._state.restarts.get(name, 0) + 1}
        self._tell(restarts=restarts)

    def _tell(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        with contextlib.suppress(TriplaneError):  # a full disk must not end what still runs
            write_state(self._path, self._state)


async def stop_all(settings: Settings, progress: Callable[[str], None]) -> None:
    """Stop every process of this home but the supervisor, the last started first, whoever started it."""
    for service in reversed(services(settings)):
        if await service.process.stop():
            progress(f"{service.name} stopped")
    await LocalCluster(settings).down(progress)


def _settings_of_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("TRIPLANE_")}


@contextlib.asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Of several that fail side by side, the first is the one to tell."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


async def _main(settings: Settings, options: argparse.Namespace) -> None:
    lock = try_lock(settings.run / "supervisor.lock")
    if lock is None:
        raise Unavailable(f"another supervisor of {settings.home} is running; see `triplane status`")
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(
        settings, kubeconfig=options.kubeconfig, fsync=not options.no_fsync, release=options.release
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.end, task)
    try:
        await supervisor.run()
    except asyncio.CancelledError:
        return
    finally:
        os.close(lock)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep Triplane's processes running.")
    parser.add_argument("--kubeconfig", type=Path, help="an administrator's, of an existing cluster")
    parser.add_argument("--no-fsync", action="store_true", help="for tests: etcd may lose a power cut's seconds")
    parser.add_argument("--release", default="", help="names the program that is started")
    try:
        asyncio.run(_main(Settings(), parser.parse_args()))
    except TriplaneError as failure:
        sys.exit(str(failure))
