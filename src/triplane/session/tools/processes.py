"""Programs of tools: copied, measured and run as harness programs are, each in a sandbox of its own.

A tool's sandbox holds its program and nothing of the run: no inputs, no outputs, no work order. Its only network is the
session's egress proxy, and that only where the session's authority grants any egress and the Tool's own class is not
``None``.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triplane.api.harness import ExecHarness
from triplane.api.tool import EgressClass, ExecTool, StdioServer
from triplane.session import listeners
from triplane.session.execution import Execution, start_isolated, start_unisolated
from triplane.session.grants import Grants
from triplane.session.harness.protocol import Record
from triplane.session.launch import HostKit
from triplane.session.program import Program, copy_approved, measure_program
from triplane.session.refusal import RunEndsEarly
from triplane.session.sandbox import NOBODY, Mount
from triplane.session.tools.peer import ServerFailed
from triplane.session.tools.stdio import writable
from triplane.session.workspace import INSIDE

_PATH: Final = "/usr/bin:/bin"
_ETC: Final[Mapping[str, str]] = {
    "passwd": f"tool:x:{NOBODY}:{NOBODY}:tool:/tmp:/bin/sh\n",
    "group": f"tool:x:{NOBODY}:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
Recorder = Callable[[Record], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What the tools of one run are started with."""

    kit: HostKit
    root: Path
    """The run's folder; each tool gets one in it."""
    egress: Sequence[str]
    """Patterns the session's authority grants."""
    record: Recorder


@dataclass(frozen=True, slots=True)
class ToolProgram:
    """A tool's program, ready to be started any number of times."""

    bench: Bench
    folder: Path
    program: Program
    harness: ExecHarness
    env: Mapping[str, str]
    """Declared variables and secrets."""
    egress: Sequence[str] = ()
    """Patterns its proxy goes by: the session's, or none where the Tool's class says that nothing leaves."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Execution, int]]:
        """``(execution, write end of its standard input)``; whoever takes the descriptor closes it. The process tree
        and its proxy are gone afterwards. Raises ``SandboxFailed``."""
        grants = Grants(egress=tuple(self.egress))
        read_end, write_end = os.pipe()
        try:
            execution = await self._start(read_end, grants)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        proxy = grants.proxy(execution, self.bench.record)
        try:
            if proxy is not None:
                await proxy.start()
            yield execution, write_end
        finally:
            try:
                await execution.end()
            finally:
                if proxy is not None:
                    await proxy.close()

    async def _start(self, stdin: int, grants: Grants) -> Execution:
        kit = self.bench.kit
        sandbox = kit.isolation.sandbox
        if sandbox is not None:
            command = self.program.command(self.harness, INSIDE / "program", kit.interpreter.executable)
            env = self._environment("/tmp") | grants.environment(listeners.PORTS, INSIDE)  # noqa: S108 - its own
            mounts = [Mount(self.program.path, "/work/program"), *grants.mounts()]
            mounts += [Mount(self.folder / "etc" / name, f"/etc/{name}") for name in _ETC]
            return await start_isolated(sandbox, command, mounts=mounts, env=env, listeners=grants.doors, stdin=stdin)
        grants.word = secrets.token_urlsafe(24)
        opened = listeners.open_loopback(grants.doors)
        ports = {name: int(door.getsockname()[1]) for name, door in opened.items()}
        command = self.program.command(self.harness, self.program.path, kit.interpreter.executable)
        env = self._environment(str(self.folder)) | grants.environment(ports, self.folder)
        # Without a sandbox a run's processes are known by this variable (session.execution).
        env["TRIPLANE_OUTPUTS"] = f"{self.folder}/outputs"
        return await start_unisolated(
            kit.interpreter, command, folder=self.folder, env=env, listeners=opened, stdin=stdin
        )

    def _environment(self, home: str) -> dict[str, str]:
        return {"LANG": "C.UTF-8", **self.env, "PATH": _PATH, "HOME": home}


def bring_program(
    bench: Bench,
    tool: str,
    declared: StdioServer | ExecTool,
    secret_env: Mapping[str, str],
    egress: EgressClass = EgressClass.NONE,
) -> ToolProgram:
    """Copy the approved program and hash the copy. Blocking. Raises ``ServerFailed`` with the reason: not approved, not
    what the Tool pins, no plain file or folder."""
    folder = bench.root / "tools" / tool
    harness = ExecHarness.model_validate(
        {
            "program": declared.program,
            "digest": declared.digest,
            "entrypoint": declared.entrypoint,
            "interpreter": declared.interpreter,
            "args": declared.args if isinstance(declared, StdioServer) else [],
            "env": [],
        }
    )
    (folder / "etc").mkdir(parents=True)
    for name, text in _ETC.items():
        (folder / "etc" / name).write_text(text)
    for path in (folder.parent, folder, folder / "etc"):
        path.chmod(0o755)
    try:
        copy_approved(bench.kit.programs, declared.program, folder / "program")
        program = measure_program(harness, folder / "program")
    except RunEndsEarly as end:
        raise ServerFailed(str(end).replace("the Harness", "the Tool")) from end
    env = {item.name: item.value for item in declared.env} if isinstance(declared, StdioServer) else {}
    env |= secret_env
    for name, value in env.items():
        if name.startswith(("TRIPLANE_", "LD_", "PYTHON")) or name in {"PATH", "HOME"} or "\0" in value:
            raise ServerFailed(f"variable {name} belongs to the session host: name another in the Tool")
    reach = () if egress is EgressClass.NONE else tuple(bench.egress)
    return ToolProgram(bench, folder, program, harness, env, reach)


async def run_once(program: ToolProgram, line: bytes, limit: int) -> tuple[int, bytes, str]:
    """Start it, pass ``line`` on standard input, and wait for its end: ``(exit code, standard output, last words)``.
    Raises ``ServerFailed`` where it says more than ``limit`` octets. Cancelled, its processes are killed."""
    async with program.running() as (execution, stdin):
        feeding = asyncio.create_task(_feed(stdin, line))
        listening = asyncio.create_task(_limited(execution, limit))
        complaining = asyncio.create_task(_last_words(execution))
        try:
            output = await listening
            code = await execution.wait()
            await execution.kill()
            return code, output, await complaining
        finally:
            await execution.end()  # a writer that waits for a full pipe is released by its reader's death
            for task in (feeding, listening, complaining):
                task.cancel()
            await asyncio.gather(feeding, listening, complaining, return_exceptions=True)


async def _feed(descriptor: int, octets: bytes) -> None:
    """Not in a thread: programs that do not read would hold all there are, and every run of this runner needs some."""
    os.set_blocking(descriptor, False)
    view = memoryview(octets)
    try:
        with contextlib.suppress(BrokenPipeError):
            while view:
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:
                    await writable(descriptor)
    finally:
        os.close(descriptor)


async def _limited(execution: Execution, limit: int) -> bytes:
    found = bytearray()
    while chunk := await execution.stdout.read(64 * 1024):
        found += chunk
        if len(found) > limit:
            raise ServerFailed(f"it wrote more than {limit} octets to standard output")
    return bytes(found)


async def _last_words(execution: Execution) -> str:
    kept = b""
    while chunk := await execution.stderr.read(64 * 1024):
        kept = (kept + chunk)[-4096:]
    return kept.decode("utf-8", "replace").strip()[-2000:]
