"""One process tree: started in a sandbox, and gone without remainder when it ends.

The init process of the sandbox's PID namespace is held by a pidfd. When it has died the kernel has killed and
reaped everything in the namespace first (pid_namespaces(7)), so its pidfd becoming readable is the proof that
nothing is left: no scan, no race with reused process numbers.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from triplane.errors import TriplaneError
from triplane.session import listeners as doors
from triplane.session.interpreter import Interpreter
from triplane.session.sandbox import READY, Mount, Sandbox, environment_descriptor, filter_descriptor, launcher

_GONE_SECONDS = 20.0
_BUFFER = 256 * 1024


class SandboxFailed(TriplaneError):
    """The sandbox could not be set up; the program never ran."""


@dataclass(slots=True)
class Execution:
    """A started process tree with its output. Always end it with ``end``."""

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    _process: asyncio.subprocess.Process
    _init: int | None
    """pidfd of the sandbox's init process; None without a sandbox."""
    _marker: Path | None
    """Without a sandbox: the run's folder, by which its processes are known."""
    listeners: Mapping[str, socket.socket] = field(default_factory=dict)
    """The doors that were asked for (``triplane.session.listeners``), closed at the end: whoever serves one serves a
    ``dup()`` of it, for a server does not survive that its socket is closed under it."""
    _pipes: list[asyncio.ReadTransport] = field(default_factory=list)
    _ended: bool = False

    @property
    def isolated(self) -> bool:
        """It runs in a sandbox, so its end is certain."""
        return self._marker is None

    async def wait(self) -> int:
        """Exit code of the program: 128 + n when signal n ended it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def kill(self) -> None:
        """Kill every process at once and return when none is left. May be called again.

        Raises ``SandboxFailed`` if processes survive SIGKILL for 20 s (stuck in the kernel).
        """
        if self._ended:
            return
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        if self._process.returncode is None:  # not reaped: its number is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._init is not None and not await _readable(self._init, _GONE_SECONDS):
            raise SandboxFailed(
                f"processes of the sandbox outlive SIGKILL for {_GONE_SECONDS:g} s: look for tasks in state D "
                "on the runner's machine"
            )
        if self._marker is not None:
            await asyncio.to_thread(_kill_marked, self._marker)

    async def end(self) -> None:
        """Kill what is left and release the descriptors. May be called again."""
        try:
            await self.kill()
        finally:
            self._ended = True
            for pipe in self._pipes:
                pipe.close()
            doors.close(self.listeners)
            if self._init is not None:
                os.close(self._init)
                self._init = None


async def start_isolated(
    sandbox: Sandbox,
    command: Sequence[str],
    *,
    mounts: Sequence[Mount],
    env: Mapping[str, str],
    listeners: Sequence[str] = (),
    stdin: int = asyncio.subprocess.DEVNULL,
) -> Execution:
    """Start the command in the sandbox; returns once the sandbox stands and the program is about to run.

    ``listeners`` names doors of ``triplane.session.listeners.PORTS``: the program may connect to that port of its
    127.0.0.1 at once, and is heard when ``Execution.listeners[name]`` is served. ``env`` stands on no command
    line. ``stdin`` is a descriptor it reads from; it stays the caller's to close, unlike those of the mounts. Raises
    ``SandboxFailed`` with what bubblewrap said. Call it on the main thread's event loop: the sandbox dies with the
    thread that started it (prctl(2), PR_SET_PDEATHSIG).
    """
    status_read, status_write = os.pipe()
    inner = os.dup(status_write)
    filter_fd = filter_descriptor() if sandbox.filtered else None
    env_fd = environment_descriptor(env)
    kept = [status_write, inner, env_fd, *([filter_fd] if filter_fd is not None else [])]
    kept += [mount.descriptor for mount in mounts if mount.descriptor is not None]
    ours, theirs = doors.door_pair(listeners)
    if theirs is not None:
        wanted = doors.request(listeners, theirs)
        kept.append(theirs.detach())
    else:
        wanted = doors.NONE
    argv = sandbox.argv(
        command,
        mounts=mounts,
        env_fd=env_fd,
        status=(status_write, inner),
        filter_fd=filter_fd,
        doors=wanted,
    )
    if ours is None:
        return await _start(argv, {}, Path("/"), (status_read, kept), None, stdin)
    with ours:
        execution = await _start(argv, {}, Path("/"), (status_read, kept), None, stdin)
        try:
            execution.listeners = doors.receive(listeners, ours)
        except doors.NoListener as error:
            await execution.end()
            raise SandboxFailed(str(error)) from error
    return execution


async def start_unisolated(
    interpreter: Interpreter,
    command: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    listeners: Mapping[str, socket.socket] = MappingProxyType({}),
    stdin: int = asyncio.subprocess.DEVNULL,
) -> Execution:
    """Start the command as a plain process group of the runner's user: nothing is enforced.

    Its end is best effort: the group is killed, and every process whose environment still names this folder.
    ``listeners`` are loopback ports opened before (``listeners.open_loopback``), closed with the execution.
    """
    try:
        status_read, status_write = os.pipe()
        argv = [*launcher(interpreter, 0, status_write), *command]
        execution = await _start(argv, env, folder, (status_read, [status_write]), folder, stdin)
    except BaseException:
        doors.close(listeners)
        raise
    execution.listeners = listeners
    return execution


async def _start(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    status: tuple[int, Sequence[int]],
    marker: Path | None,
    stdin: int,
) -> Execution:
    """Spawn and wait for the launcher's word. ``status``: the read end, and the descriptors the child keeps
    and this side closes."""
    status_read, kept = status
    try:
        execution = await _spawn(argv, env, cwd, kept, stdin)
        execution._marker = marker
    except BaseException:
        os.close(status_read)
        raise
    finally:
        for descriptor in kept:
            os.close(descriptor)
    try:
        lines, pipe = await _reader(status_read)
        execution._pipes.append(pipe)
        await _until_ready(execution, lines)
    except BaseException:
        await execution.end()
        raise
    return execution


async def _spawn(argv: Sequence[str], env: Mapping[str, str], cwd: Path, kept: Sequence[int], stdin: int) -> Execution:
    out_read, out_write = os.pipe()
    error_read, error_write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=out_write,
            stderr=error_write,
            env=dict(env),
            cwd=cwd,
            pass_fds=tuple(kept),
            start_new_session=True,
        )
    except OSError as error:
        os.close(out_read)
        os.close(error_read)
        raise SandboxFailed(f"cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.close(out_write)
        os.close(error_write)
    # Own pipes, not asyncio's: a process that escaped with the pipe open must not delay ``wait``.
    try:
        stdout, out_pipe = await _reader(out_read)
        stderr, error_pipe = await _reader(error_read)
    except BaseException:  # cancelled in this very moment: nobody else knows of the process yet
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    return Execution(stdout, stderr, process, None, None, _pipes=[out_pipe, error_pipe])


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_BUFFER)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


async def _until_ready(execution: Execution, status: asyncio.StreamReader) -> None:
    while True:
        line = await status.readline()
        if line == READY:
            return
        if not line:
            said = (await execution.stderr.read(4096)).decode("utf-8", "replace").strip()
            raise SandboxFailed(f"the sandbox could not be set up: {said or 'bubblewrap said nothing'}")
        child = json.loads(line).get("child-pid")
        if child is not None:
            execution._init = _pidfd_of_child(int(child), execution._process.pid)


def _pidfd_of_child(pid: int, parent: int) -> int | None:
    """A pidfd of ``pid``, if it (still) is a child of ``parent`` and not a stranger with a reused number."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            return descriptor
    except (FileNotFoundError, ProcessLookupError):
        pass
    os.close(descriptor)
    return None


async def _readable(descriptor: int, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.add_reader(descriptor, _settle, done)
    try:
        await asyncio.wait_for(done, seconds)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _settle(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


def _kill_marked(folder: Path) -> None:
    """Kill processes whose TRIPLANE_OUTPUTS lies in this folder, until a pass finds none."""
    marker = f"TRIPLANE_OUTPUTS={folder}/".encode()
    for _ in range(10):
        killed = [_kill_if_marked(int(name), marker) for name in os.listdir("/proc") if name.isdigit()]
        if not any(killed):
            return


def _kill_if_marked(pid: int, marker: bytes) -> bool:
    try:
        descriptor = os.pidfd_open(pid)  # first, so that a reused number cannot be hit
    except OSError:
        return False
    try:
        if pid == os.getpid() or marker not in Path(f"/proc/{pid}/environ").read_bytes():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
