"""A harness that wears its session host down: connections without end at the tools' door, requests that take long to
read. The runner carries other runs, whose leases must be renewed and whose files must open meanwhile."""

import asyncio
import contextlib
import gc
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.session.toolbench import Bed, ToolBench, make_bench

from triplane.session.tools import endpoint, processes
from triplane.session.tools.host import MAX_ARGUMENTS, ToolHost

pytestmark = pytest.mark.attacks
CLOCK = {"clock": {"builtin": "clock"}}
TOILSOME: dict[str, Any] = {"a": [{"b": 1}] * 28_000}
"""Under the limit of arguments in octets, and much work to clean."""


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


async def _descriptors(bed: Bed, many: int) -> int:
    """What so many silent connections cost the host (this process has both ends)."""
    port = int(bed.url.split(":")[2].partition("/")[0])
    gc.collect()  # what earlier tests have left closes now, not while it is counted
    before = len(os.listdir("/proc/self/fd"))
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(many)]
    try:
        await asyncio.sleep(0.3)
        return len(os.listdir("/proc/self/fd")) - before - many
    finally:
        for client in clients:
            client.close()


async def test_without_a_limit_every_connection_costs_the_runner_a_descriptor(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_AT_ONCE", 10_000)
    async with bench.bed(CLOCK) as bed:
        assert await _descriptors(bed, 120) >= 120


async def test_connections_beyond_the_limit_wait_in_the_kernel(bench: ToolBench) -> None:
    async with bench.bed(CLOCK) as bed:
        assert await _descriptors(bed, 120) <= endpoint._AT_ONCE
        await asyncio.sleep(0.1)
        assert (await bed.post("ping")).status_code == 200, "whose turn comes is served"


async def test_hanging_up_does_not_free_the_place_of_a_call_under_way(bench: ToolBench) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pretend__slow", "arguments": {}}}
    body = json.dumps(message).encode()
    head = f"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with bench.bed({"pretend": bench.pretend(timeoutSeconds=60)}) as bed:
        port = int(bed.url.split(":")[2].partition("/")[0])
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(head + body)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert 0 < len(bed.host._calls) <= endpoint._AT_ONCE


async def test_a_request_that_no_call_could_need_is_not_even_read(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"name": "clock__now", "arguments": {"timezone": "x" * 3 * MAX_ARGUMENTS}}
    async with bench.bed(CLOCK) as bed:
        answer = await bed.post("tools/call", call)
        assert answer.status_code == 400
        assert f"more than {2 * MAX_ARGUMENTS} octets" in answer.text
        assert bed.told.ended == []
        monkeypatch.setattr(endpoint, "_MAX_BODY", 1 << 30)
        assert (await bed.post("tools/call", call)).status_code == 200
        assert len(bed.told.ended) == 1


async def _longest_pause(bench: ToolBench) -> float:
    """Seconds in which nobody else in the runner was served, while a toilsome call was."""
    loop = asyncio.get_running_loop()
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            worst = max(worst, loop.time() - before)

    async with bench.bed(CLOCK) as bed:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        worst = 0.0
        for _ in range(3):
            assert "Refused" in await bed.text("clock__now", **TOILSOME)
        watching.cancel()
    return worst


async def test_cleaning_what_a_model_sends_does_not_hold_up_other_runs(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = await _longest_pause(bench)

    async def at_once(_: ToolHost, work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(ToolHost, "_aside", at_once)
    assert await _longest_pause(bench) > 2 * aside


_DEAF = "import time\ntime.sleep(60)\n"


async def _threads_left(bench: ToolBench) -> bool:
    """Whether another run's files can be seen to while twelve programs do not read what they are sent."""
    (bench.programs / "deaf.py").write_text(_DEAF)
    async with bench.bed({"deaf": {"exec": {"program": "deaf.py"}}}) as bed:
        calls = [asyncio.create_task(bed.call("deaf__run", line="x" * 200_000)) for _ in range(12)]
        await asyncio.sleep(4)
        try:
            await asyncio.wait_for(asyncio.to_thread(os.getpid), 2)
        except TimeoutError:
            return False
        finally:
            for call in calls:
                call.cancel()
        return True


async def test_programs_that_do_not_read_leave_other_runs_their_threads(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _threads_left(bench)

    async def in_a_thread(descriptor: int, octets: bytes) -> None:
        def feed() -> None:
            with contextlib.suppress(OSError), os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(octets)

        await asyncio.to_thread(feed)

    monkeypatch.setattr(processes, "_feed", in_a_thread)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=6))
    assert not await _threads_left(bench)
