"""A harness whose words take long to clean: the gateway, which renews everybody's leases, serves others meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.gateway.conftest import apiserver, memory, world  # noqa: F401 - fixtures
from tests.integration.gateway.world import World, order

from triplane.gateway import sessions, tools

pytestmark = pytest.mark.attacks
TOILSOME = [{"b": 1}] * 5500
"""Few octets, and much work to clean."""
TOOLS = [{"name": "echo", "uid": "u", "generation": 1, "digest": "sha256:" + "1" * 64, "spec": {"builtin": "clock"}}]


async def _longest_pause(call: Callable[[int], Awaitable[Any]]) -> float:
    """Seconds in which nobody else was served, while three such calls were."""
    loop = asyncio.get_running_loop()
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            worst = max(worst, loop.time() - before)

    watching = asyncio.create_task(watch())
    for number in range(3):
        answer = await call(number)
        assert answer.status_code == 200, answer.text
    watching.cancel()
    return worst


async def _inline(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


async def test_a_report_of_a_call_is_cleaned_aside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    run = await world.started(work_order={**order(), "tools": TOOLS})
    count = iter(range(1, 100))

    async def told(_: int) -> Any:
        called = {"invocation": f"call-1-{next(count)}", "tool": "echo", "operation": "now", "arguments": {}}
        ended = {"status": "succeeded", "leave": "not_required", "milliseconds": 1, "output": TOILSOME * 8}
        return await run.post("invocations", called | ended)

    await told(0)
    aside = await _longest_pause(told)
    monkeypatch.setattr(tools.asyncio, "to_thread", _inline)
    assert await _longest_pause(told) > 1.5 * aside


async def test_a_segment_of_the_journal_is_cleaned_aside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    run = await world.started()
    count = iter(range(1, 100))

    async def said(_: int) -> Any:
        return await run.record(next(count), *({"a": TOILSOME} for _ in range(4)))

    await said(0)
    aside = await _longest_pause(said)
    monkeypatch.setattr(sessions, "_BULKY", 1 << 30)
    assert await _longest_pause(said) > 1.5 * aside
