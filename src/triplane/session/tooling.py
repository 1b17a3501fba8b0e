"""Tools, as the session host uses them. What serves them is imported by the first run that has any: a run without
tools pays nothing for it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplane.session.budget import Meter
from triplane.session.client import RunGateway
from triplane.session.grants import Grants
from triplane.session.refusal import refused

if TYPE_CHECKING:
    from triplane.session.launch import HostKit
    from triplane.session.tools.host import ToolHost
    from triplane.session.tools.processes import Recorder


@asynccontextmanager
async def tools_of_run(
    kit: "HostKit",
    gateway: RunGateway,
    order: Mapping[str, Any],
    *,
    root: Path,
    grants: Grants,
    meter: Meter,
    record: "Recorder",
) -> AsyncIterator["ToolHost | None"]:
    """The Tools of the work order, ready to be called; None where there are none. ``root`` is the run's folder. Raises
    ``RunEndsEarly`` (``ToolUnavailable``) naming the Tool that cannot be had."""
    if not order.get("tools"):
        yield None
        return
    # In a thread: their imports must not hold up the other runs of this process.
    await asyncio.to_thread(import_module, "triplane.session.tools.endpoint")
    serving = await asyncio.to_thread(import_module, "triplane.session.tools.serving")

    run = serving.ServedRun(kit, gateway, root, order, meter, record, grants.secrets)
    opening = serving.served_tools(run)
    try:
        host = await opening.__aenter__()
    except serving.ToolUnavailable as error:
        raise refused("ToolUnavailable", str(error)) from error
    try:
        yield host
    finally:
        await opening.__aexit__(None, None, None)
