"""Asking once more: a program that ended well and did not reflect is started again, for that alone.

It sees the same work order (with ``"ask": "reflection"``) and what it has left, read-only; it has no tools, no egress,
no secrets, and a minute. What it says counts as said in the same run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from triplane.api.harness import ExecHarness
from triplane.session.execution import start_isolated, start_unisolated
from triplane.session.harness.exec import Ended, TimeLimits, attend
from triplane.session.harness.protocol import Record
from triplane.session.launch import HostKit, environment
from triplane.session.program import Program
from triplane.session.workspace import INSIDE, Workspace, write_order

ASK_SECONDS: Final = 60.0
"""Longest answer; less where the run's own time limit is shorter."""
ASK: Final = "reflection"
_TMP: Final = Path("/tmp")  # noqa: S108 - the sandbox's own
Journal = Callable[[Record], Awaitable[None]]


def must_ask(ended: Ended) -> bool:
    """Whether nothing but the reflection is missing."""
    well = ended.exit_code == 0 and ended.overtime is None and ended.spent is None
    return well and ended.heard.reflection is None


async def ask_once_more(
    kit: HostKit,
    workspace: Workspace,
    started: tuple[Program, ExecHarness],
    order: Mapping[str, Any],
    ended: Ended,
    record: Journal,
) -> Ended:
    """``ended`` with the reflection, if there is one now. How the program ends this time does not matter, nor does
    what it leaves. Raises ``SandboxFailed``; when cancelled, no process of it is left."""
    program, harness = started
    sandbox = kit.isolation.sandbox
    await asyncio.to_thread(_ask_in_order, workspace, order, inside=sandbox is not None)
    place = INSIDE if sandbox is not None else workspace.root
    command = program.command(harness, place / "program", kit.interpreter.executable)
    env = environment(harness, place, _TMP if sandbox is not None else workspace.root) | {"TRIPLANE_ASK": ASK}
    await record(Record("activity", {"message": "the host asks once more for a reflection"}))
    if sandbox is not None:
        mounts = [replace(mount, writable=False) for mount in workspace.mounts()]
        execution = await start_isolated(sandbox, command, mounts=mounts, env=env)
    else:
        execution = await start_unisolated(kit.interpreter, command, folder=workspace.root, env=env)
    limit = min(ASK_SECONDS, float(order.get("timeoutSeconds") or ASK_SECONDS))
    again = await attend(execution, TimeLimits(limit), record, ended.heard.meter)
    return replace(ended, heard=replace(ended.heard, reflection=again.heard.reflection), spent=again.spent)


def _ask_in_order(workspace: Workspace, order: Mapping[str, Any], *, inside: bool) -> None:
    """The program reads the request where it has read its order: a new file, for the old one is read-only."""
    workspace.order.unlink()
    write_order(workspace, {**order, "ask": ASK}, inside=inside)
