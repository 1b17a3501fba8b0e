"""Conditions in their worker process: what they may say, what is refused, and that none can hold the operator up."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from triplane.adapters.cel import process as module
from triplane.adapters.cel.expressions import CelExpressions
from triplane.adapters.cel.limits import MAX_VARIABLES
from triplane.api.work import MAX_CONDITION
from triplane.errors import InvalidExpression, Unavailable

SEEN: dict[str, Any] = {
    "steps": {
        "audit": {
            "state": "completed",
            "outputs": {
                "report": {
                    "digest": "sha256:" + "a" * 64, "size": 12, "mediaType": "application/json",
                    "json": {"total": 3, "rate": 0.5, "ok": True, "none": None, "rows": [{"n": 1}, {"n": 2}]},
                }
            },
        },
        "late-step": {"state": "skipped", "outputs": {}},
    },
    "parameters": {"threshold": "2", "mode": "full"},
}  # fmt: skip


@pytest.fixture
async def cel() -> AsyncIterator[CelExpressions]:
    made = CelExpressions()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('steps["audit"].state == "completed"', True),
        ('steps.audit.state == "skipped"', False),
        ('steps["late-step"].state == "skipped"', True),
        ("steps.audit.outputs.report.json.total > int(parameters.threshold)", True),
        ("steps.audit.outputs.report.json.total > 2.5", True),
        ("steps.audit.outputs.report.json.rate < 1", True),
        ("steps.audit.outputs.report.json.ok", True),
        ("steps.audit.outputs.report.json.none == null", True),
        ("has(steps.audit.outputs.report.json.missing)", False),
        ('"other" in steps', False),
        ("steps.audit.outputs.report.json.rows.exists(r, r.n == 2)", True),
        ("steps.audit.outputs.report.json.rows.map(r, r.n).size() == 2", True),
        ('steps.all(s, steps[s].state in ["completed", "skipped"])', True),
        ('parameters.mode.matches("^f.*l$")', True),
        ("true || steps.nope.x", True),
        ("{'a': 1}.a == 1", True),
    ],
)
async def test_what_conditions_may_say(cel: CelExpressions, expression: str, value: bool) -> None:
    await cel.check(expression)
    assert await cel.evaluate(expression, SEEN) is value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        pytest.param("1 +", "1:4: Syntax error", id="no expression, with its place"),
        pytest.param("nope == 1", "undeclared reference to 'nope'", id="an unknown name"),
        pytest.param("parameters.mode", "of type STRING, not bool", id="a text"),
        pytest.param("parameters.mode == 1", "no matching overload for '_==_'", id="a text compared with a number"),
        pytest.param("[1].all(a, [1].all(b, [1].all(c, true)))", "3 comprehensions", id="three loops in one another"),
        pytest.param(
            "{'k': [1].map(a, [1].map(b, [1].map(c, c)))}.size() == 1", "3 comprehensions", id="hidden in a map's value"
        ),
        pytest.param("(" * 200 + "true" + ")" * 200, "recursion limit", id="nested without end"),
        pytest.param("true" + " || true" * 200, f"{MAX_CONDITION} are allowed", id="too long"),
        pytest.param("", "Syntax error", id="nothing"),
        pytest.param("'\ud800' == ''", "no JSON", id="half a character"),
    ],
)
async def test_what_is_refused_before_it_is_ever_run(cel: CelExpressions, expression: str, why: str) -> None:
    with pytest.raises(InvalidExpression) as raised:
        await cel.check(expression)
    assert why in str(raised.value)
    assert str(raised.value).startswith("the condition `")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        pytest.param("steps.audit.outputs.report.json", "not bool", id="a document"),
        pytest.param("steps.audit.outputs.nope.json.x", 'Key not found in map : "nope"', id="a missing output"),
        pytest.param("steps.gone.state == 'completed'", '"gone"', id="a step it does not depend on"),
        pytest.param("int(parameters.mode) > 1", "", id="a text that is no number"),
        pytest.param("1 / (int(parameters.threshold) - 2) > 0", "divide by zero", id="a division by zero"),
        pytest.param("'a'.matches('(')", "missing )", id="a broken pattern"),
    ],
)
async def test_what_fails_on_the_values_says_so(cel: CelExpressions, expression: str, why: str) -> None:
    await cel.check(expression)
    with pytest.raises(InvalidExpression) as raised:
        await cel.evaluate(expression, SEEN)
    assert why in str(raised.value)


def _list(length: int) -> dict[str, Any]:
    return {"steps": {"a": {"state": "completed", "outputs": {"o": {"json": ["x" * 300] * length}}}}, "parameters": {}}


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(
            "steps.a.outputs.o.json.all(x, steps.a.outputs.o.json.all(y, x == y))", id="two loops over a list"
        ),
        pytest.param(
            "steps.a.outputs.o.json.map(x, steps.a.outputs.o.json.map(y, x + y + x + y + x + y + x + y)).size() > 0",
            id="texts heaped up",
        ),
    ],
)
async def test_what_is_too_much_work_ends_and_the_next_one_is_served(cel: CelExpressions, expression: str) -> None:
    with pytest.raises(InvalidExpression):
        await cel.evaluate(expression, _list(3000))
    assert await cel.evaluate("true", SEEN) is True


HEAVY = "steps.a.outputs.o.json.all(x, steps.a.outputs.o.json.all(y, !(x + y).matches('(x*y*)*(x+x+)+z')))"
"""Ten thousand rounds are CEL's own limit; each can still be made to cost a lot."""


def _heavy() -> dict[str, Any]:
    outputs = {"o": {"json": ["x" * 60_000] * 90}}
    return {"steps": {"a": {"state": "completed", "outputs": outputs}}, "parameters": {}}


async def test_cpu_time_over_the_limit_kills_the_worker_and_only_that(cel: CelExpressions) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidExpression, match="CPU time"):
        await cel.evaluate(HEAVY, _heavy())
    assert time.monotonic() - began < module.ANSWER_SECONDS
    assert await cel.evaluate("true", SEEN) is True


async def test_the_event_loop_goes_on_while_a_condition_is_at_work(cel: CelExpressions) -> None:
    assert await cel.evaluate("true", SEEN)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(InvalidExpression, match="CPU time"):
        await cel.evaluate(HEAVY, _heavy())
    ticking.cancel()
    assert ticks > 20, "half a second of the worker's time has room for a hundred"


async def test_two_hundred_plain_conditions_take_less_than_a_second_of_cpu(cel: CelExpressions) -> None:
    assert await cel.evaluate("true", SEEN)
    expressions = [
        f'steps.audit.outputs.report.json.total > {number % 7} || parameters.mode == "full"' for number in range(200)
    ]
    before, began = time.process_time(), time.monotonic()
    assert all(await asyncio.gather(*(cel.evaluate(item, SEEN) for item in expressions)))
    assert time.process_time() - before < 1
    assert time.monotonic() - began < 10, "even on a busy machine"


async def test_a_killed_worker_is_replaced_unseen(cel: CelExpressions) -> None:
    assert await cel.evaluate("true", SEEN)
    assert cel._worker._process is not None
    first = cel._worker._process.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.sleep(0.05)
    assert await cel.evaluate("true", SEEN)
    assert cel._worker._process.pid != first


async def test_a_caller_that_gives_up_leaves_no_answer_for_the_next(cel: CelExpressions) -> None:
    assert await cel.evaluate("true", SEEN)
    slow = asyncio.create_task(
        cel.evaluate("steps.a.outputs.o.json.all(x, steps.a.outputs.o.json.all(y, x == y))", _list(5000))
    )
    await asyncio.sleep(0.01)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert await cel.evaluate("parameters.mode == 'full'", SEEN) is True
    assert await cel.evaluate("parameters.mode == 'none'", SEEN) is False


async def test_a_worker_that_does_not_answer_is_nobodys_fault(
    cel: CelExpressions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await cel.evaluate("true", SEEN)
    assert cel._worker._process is not None
    os.kill(cel._worker._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="tried again"):
        await cel.evaluate("true", SEEN)
    monkeypatch.undo()
    assert await cel.evaluate("true", SEEN)


async def test_the_worker_ends_with_whoever_started_it() -> None:
    cel = CelExpressions()
    assert await cel.evaluate("true", SEEN)
    process = cel._worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 10) == 0
    await cel.close()


async def test_more_than_can_be_looked_at_is_refused(cel: CelExpressions) -> None:
    large = {"steps": {"a": {"json": "x" * MAX_VARIABLES}}, "parameters": {}}
    with pytest.raises(InvalidExpression, match="over 8 MiB"):
        await cel.evaluate("true", large)


async def test_the_worker_knows_nothing_of_its_parents_environment(
    cel: CelExpressions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPLANE_SECRET_FOR_THIS_TEST", "1")
    assert await cel.evaluate("true", SEEN)
    assert cel._worker._process is not None
    with open(f"/proc/{cel._worker._process.pid}/environ", "rb") as file:
        assert b"TRIPLANE" not in file.read()
