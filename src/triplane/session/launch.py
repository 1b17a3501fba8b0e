"""Launching: from a claimed run to its running program.

Everything a program will see is put into the workspace first; then it is started with exactly that in sight.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.api.harness import ExecHarness
from triplane.api.meta import Material
from triplane.errors import TriplaneError
from triplane.session.client import RunGateway
from triplane.session.execution import Execution, start_isolated, start_unisolated
from triplane.session.grants import Grants
from triplane.session.interpreter import Interpreter
from triplane.session.isolation import Isolation
from triplane.session.listeners import PORTS, open_loopback
from triplane.session.program import Program, copy_approved, measure_program
from triplane.session.refusal import refused
from triplane.session.workspace import (
    INSIDE,
    Workspace,
    create_workspace,
    fetch_blob,
    fetch_inputs,
    unpack_archive,
    write_order,
)

_RESERVED_ENV = ("TRIPLANE_", "LD_", "PYTHON")
_PATH = "/usr/bin:/bin"
_TMP = Path("/tmp")  # noqa: S108 - the sandbox's own


@dataclass(frozen=True, slots=True)
class HostKit:
    """What every run on this machine shares."""

    sessions: Path
    """Folder of the workspaces."""
    programs: Path | None
    """Directory of approved programs."""
    isolation: Isolation
    allow_unisolated: bool
    interpreter: Interpreter
    interpreter_materials: tuple[Material, ...]
    service_token: Callable[[], str | None]
    """Only to keep it out of journals."""
    shared: Path | None = None
    """Folder whose parts runs may see where authority grants paths."""


async def prepare(
    kit: HostKit, gateway: RunGateway, workspace: Workspace, order: Mapping[str, Any], harness: ExecHarness
) -> Program:
    """Fill the workspace with work order, inputs and the program's copy; returns the copy, measured.

    Raises ``RunEndsEarly`` where the run must be refused.
    """
    sandbox = kit.isolation.sandbox
    await asyncio.to_thread(create_workspace, workspace, sandbox.owner if sandbox is not None else None)
    fetching = asyncio.create_task(fetch_inputs(workspace, gateway, order.get("inputs") or []))
    try:
        await asyncio.to_thread(write_order, workspace, order, inside=sandbox is not None)
        await _bring_program(kit, gateway, workspace, harness)
        program = await asyncio.to_thread(measure_program, harness, workspace.program)
        await fetching
    finally:
        await cancelled(fetching)
    return program


async def start(
    kit: HostKit, workspace: Workspace, program: Program, harness: ExecHarness, grants: Grants | None = None
) -> Execution:
    """Start the prepared program with what it is granted, in the sandbox where there is one. Raises ``SandboxFailed``,
    ``NoListener``."""
    grants = grants or Grants()
    sandbox = kit.isolation.sandbox
    place = INSIDE if sandbox is not None else workspace.root
    command = program.command(harness, place / "program", kit.interpreter.executable)
    env = environment(harness, place, _TMP if sandbox is not None else workspace.root)
    if sandbox is not None:
        return await start_isolated(
            sandbox,
            command,
            mounts=[*workspace.mounts(), *grants.mounts()],
            env=env | grants.environment(PORTS, place),
            listeners=grants.doors,
        )
    if grants.paths and kit.shared is not None:
        await asyncio.to_thread(grants.link, kit.shared, workspace.shared)
    opened = open_loopback(grants.doors)
    ports = {name: int(door.getsockname()[1]) for name, door in opened.items()}
    env |= grants.environment(ports, place)
    return await start_unisolated(kit.interpreter, command, folder=workspace.root, env=env, listeners=opened)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait until it has ended; whoever cares reads its outcome."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen: asyncio need not complain


async def _bring_program(kit: HostKit, gateway: RunGateway, workspace: Workspace, harness: ExecHarness) -> None:
    if harness.program is not None:
        await asyncio.to_thread(copy_approved, kit.programs, harness.program, workspace.program)
    elif harness.digest is None:
        raise refused("HarnessInvalid", "the Harness names neither program nor digest: name one")
    elif harness.entrypoint is None:
        await fetch_blob(gateway, harness.digest, workspace.program)
        workspace.program.chmod(0o555)
    else:
        archive = workspace.root / "fetched" / "program"
        await fetch_blob(gateway, harness.digest, archive)
        try:
            await asyncio.to_thread(unpack_archive, archive, workspace.program)
        except TriplaneError as error:
            raise refused("ProgramRefused", f"blob {harness.digest} is no program folder: {error}") from error


def environment(harness: ExecHarness, place: Path, home: Path) -> dict[str, str]:
    """Exactly the environment of docs/reference/exec-protocol.md."""
    declared = {item.name: item.value for item in harness.env}
    for name, value in declared.items():
        if name.startswith(_RESERVED_ENV) or name in ("PATH", "HOME") or "\0" in value:
            raise refused("HarnessInvalid", f"env {name} belongs to the session host: remove it from the Harness")
    return {
        "LANG": "C.UTF-8",
        **declared,
        "PATH": _PATH,
        "HOME": str(home),
        "TRIPLANE_WORK_ORDER": str(place / "order.json"),
        "TRIPLANE_INPUTS": str(place / "inputs"),
        "TRIPLANE_OUTPUTS": str(place / "outputs"),
    }
