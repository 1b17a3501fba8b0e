"""Run tokens where they do not belong: on another run, on another session, after the run. Every call of the session API
takes them when the one check is taken away, and none does with it.
"""

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.integration.gateway.world import REFLECTION, RUNNER, Run, World, order, running

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.gateway import secrets, sessions, tools
from triplane.gateway.auth import run_of
from triplane.wiring import GatewayBackends

pytestmark = pytest.mark.attacks
MODULES: tuple[ModuleType, ...] = (sessions, secrets, tools)
NOW = "2026-01-31T12:00:00Z"
TOOL = {"name": "clock", "uid": "u", "generation": 1, "digest": "sha256:" + "1" * 64, "spec": {"builtin": "clock"}}
CALL = {"invocation": "call-1-1", "tool": "clock", "operation": "now", "arguments": {}}
CALLS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "start": ("POST", {"facts": {"isolated": True}}),
    "renew": ("POST", {"counter": 9, "usage": {"inputTokens": 1000000}}),
    "records": (
        "POST",
        {"sequence": 1, "records": [{"type": "message", "occurredAt": NOW, "payload": {"text": "forged"}}]},
    ),
    "secrets": ("GET", None),
    "calls": ("POST", CALL),
    "invocations": (
        "POST",
        {**CALL, "status": "failed", "leave": "not_required", "milliseconds": 1, "output": "forged"},
    ),
    "finish": ("POST", {"outcome": "failed", "reason": "Forged", "message": "forged", "usage": {}}),
}
REFUSED_WHEN_OVER = {name: call for name, call in CALLS.items() if name != "renew"}
"""``renew`` is answered: that is how a host learns that its run is over. It changes nothing then."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    shared = MemoryLog.create()
    backends = GatewayBackends(
        log=MemoryEventLog(shared, writer="gateway"),
        checkpoints=MemoryCheckpointStore(shared),
        content=MemoryContentStore(),
        sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(),
        graph=MemoryGraphStore(),
    )
    async with running(backends, tmp_path) as made:
        yield made


async def send(world: World, run: Run, call: str, token: str) -> int:
    method, body = CALLS[call]
    path = f"/v1/sessions/{run.uid}/runs/{run.number}/{call}"
    return (await world.call(method, path, token, **({} if body is None else {"json": body}))).status_code


def test_no_call_of_a_run_is_forgotten_here() -> None:
    """Whoever adds a call that a run token opens adds it above."""
    served = {
        route.path.rpartition("/")[2]
        for module in MODULES
        for route in module.router.routes
        if "/runs/{run}/" in route.path
    }
    assert served - set(CALLS) <= {"questions"}, "questions need a Tool that asks for leave; the check is the same line"
    for module in MODULES:
        assert "require_run(caller, uid, run)" in inspect.getsource(module)


@pytest.mark.parametrize("call", CALLS)
async def test_the_token_of_another_session_opens_no_call(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = await world.started(work_order=order() | {"tools": [TOOL]})
    thief = await world.claimed("s-2", instance="i-2")
    assert await send(world, victim, call, thief.token) == 403
    logged = await world.logged()
    view = await world.backends.sessions.get("s-1")
    assert view is not None
    assert (view.runs[0].counter, view.runs[0].usage.tokens, view.runs[0].result) == (0, 0, None)
    for module in MODULES:
        monkeypatch.setattr(module, "require_run", lambda caller, uid, number: type(caller)(uid, number))
    assert await send(world, victim, call, thief.token) == 200
    if call not in ("renew", "secrets", "start"):
        assert len(await world.logged()) > len(logged), "it did something"


@pytest.mark.parametrize("call", CALLS)
async def test_the_token_of_an_earlier_run_opens_no_call_of_the_next(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await world.started(work_order=order() | {"tools": [TOOL]})
    await world.call("POST", "/v1/runners/local/hello", RUNNER, json={"instance": "i-2"})  # the first run is lost
    await world.permit("s-1", 2)
    second = Run(world, (await world.poll(instance="i-2")).json())
    assert second.number == 2
    assert await send(world, second, call, first.token) == 403
    for module in MODULES:
        monkeypatch.setattr(module, "require_run", lambda caller, uid, number: type(caller)(uid, number))
    changed = {**CALLS, "calls": ("POST", CALL | {"invocation": "call-2-1"})}
    changed["invocations"] = ("POST", {**CALLS["invocations"][1], "invocation": "call-2-1"})  # type: ignore[dict-item]
    monkeypatch.setattr("tests.attacks.test_run_tokens.CALLS", changed)
    assert await send(world, second, call, first.token) == 200


@pytest.mark.parametrize("end", ["finished", "lost", "revoked"])
@pytest.mark.parametrize("call", REFUSED_WHEN_OVER)
async def test_a_token_opens_nothing_when_its_run_is_over(
    world: World, call: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.started(work_order=order() | {"tools": [TOOL]})
    match end:
        case "finished":
            assert (await run.finish(report=b"# Report\n")).status_code == 200
        case "lost":
            await world.call("POST", "/v1/runners/local/hello", RUNNER, json={"instance": "i-9"})
        case _:
            await world.backends.sessions.revoke("s-1", "AuthorityNarrowed")
    assert await send(world, run, call, run.token) == 409
    late = await world.call("PUT", f"/v1/blobs/sha256:{'0' * 64}", run.token, content=REFLECTION)
    assert late.status_code == 409
    if call in ("secrets", "calls"):  # the others have a second check behind the first: the store's
        for module in MODULES:
            if hasattr(module, "live_run_of"):
                monkeypatch.setattr(module, "live_run_of", run_of)
        assert await send(world, run, call, run.token) == 200


async def test_usage_told_after_the_end_counts_for_nothing(world: World) -> None:
    run = await world.started()
    assert (await run.finish(report=b"# Report\n")).status_code == 200
    before = await world.backends.sessions.spent(["t-1"])
    assert await send(world, run, "renew", run.token) in (200, 409)
    assert (await world.backends.sessions.spent(["t-1"]))["t-1"].tokens == before["t-1"].tokens == 3
