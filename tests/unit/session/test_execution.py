"""A process tree's beginning, where it may be cut off."""

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from triplane.session import execution


async def test_a_process_started_in_the_moment_of_a_cancel_does_not_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def noted(*argv: Any, **more: Any) -> asyncio.subprocess.Process:
        started.append(await create(*argv, **more))
        return started[0]

    async def cut(descriptor: int) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    monkeypatch.setattr(execution, "_reader", cut)
    sleep = shutil.which("sleep")
    assert sleep is not None
    with pytest.raises(asyncio.CancelledError):
        await execution._spawn([sleep, "60"], {}, Path("/"), (), asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(5):
        assert await started[0].wait() == -signal.SIGKILL
