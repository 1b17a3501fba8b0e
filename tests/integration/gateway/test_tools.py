"""What session hosts report of calls of tools: believed as far as the store and the frozen work order bear it out."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.gateway.world import Run, World, order

SPEC = {
    "stdio": {"program": "server.py"},
    "requiresApproval": ["send"],
    "approvers": ["carol"],
    "approvalTimeoutSeconds": 60,
    "egress": "External",
    "costMinorUnits": 5,
}
TOOLS = [{"name": "mail", "uid": "u", "generation": 1, "digest": "sha256:" + "1" * 64, "spec": SPEC}]


@pytest.fixture
async def run(world: World) -> Run:
    return await world.started(work_order={**order(), "tools": TOOLS})


def call(number: int = 1, operation: str = "send", /, **arguments: Any) -> dict[str, Any]:
    return {"invocation": f"call-1-{number}", "tool": "mail", "operation": operation, "arguments": arguments}


def report(*of: Any, status: str = "succeeded", leave: str = "not_required", **more: Any) -> dict[str, Any]:
    output = more.pop("output", {"content": []})
    made = call(1, *of) if of else call(1, "read")
    return {**made, "status": status, "leave": leave, "milliseconds": 12, "output": output, **more}


async def entries(world: World, kind: str) -> list[dict[str, Any]]:
    return [dict(item.entry) for item in await world.backends.log.query() if item.entry["type"] == kind]


async def test_a_call_is_logged_once_with_what_the_work_order_says_of_it(world: World, run: Run) -> None:
    for _ in range(2):
        answer = await run.post("invocations", report())
        assert answer.status_code == 200, answer.text

    (entry,) = await entries(world, "tool.invoked")
    assert entry["id"] == "tool.invoked/s-1/1/call-1-1"
    assert (entry["data"]["tool"], entry["data"]["egress"], entry["data"]["costMinorUnits"]) == (
        "mail/read",
        "External",
        5,
    )
    assert entry["blobs"] == sorted({entry["data"]["input"], entry["data"]["output"]}, key=entry["blobs"].index)


async def test_another_report_under_the_same_name_is_refused(world: World, run: Run) -> None:
    await run.post("invocations", report())
    answer = await run.post("invocations", report(output={"content": [{"type": "text", "text": "other"}]}))

    assert answer.status_code == 409
    assert len(await entries(world, "tool.invoked")) == 1


async def test_a_refused_call_costs_nothing(world: World, run: Run) -> None:
    await run.post("invocations", report(status="refused", leave="not_asked", rule="ToolDenied"))

    (entry,) = await entries(world, "tool.invoked")
    assert (entry["data"]["costMinorUnits"], entry["data"]["rule"]) == (0, "ToolDenied")


async def test_a_name_that_is_none_stays_out_of_the_log(world: World, run: Run) -> None:
    body = report(status="refused", leave="not_asked", rule="UnknownOperation")
    await run.post("invocations", {**body, "tool": "evil\n2026 ERROR", "operation": "\x1b[2J"})

    (entry,) = await entries(world, "tool.invoked")
    assert entry["data"]["tool"] == "unknown"
    assert "\\u001b" not in json.dumps(entry)


async def test_what_is_about_to_be_called_is_in_the_log_before(world: World, run: Run) -> None:
    answer = await run.post("calls", call(1, "send", to="bob"))

    assert answer.status_code == 200, answer.text
    (entry,) = await entries(world, "tool.begun")
    assert json.loads(await world.blob(entry["data"]["input"])) == {"tool": "mail/send", "arguments": {"to": "bob"}}


async def test_secrets_and_control_characters_of_calls_never_reach_the_store(world: World, run: Run) -> None:
    output = {"content": [{"type": "text", "text": "\x1b[2J password=hunter22"}]}
    await run.post("invocations", {**report(output=output), "arguments": {"apiKey": "hush"}})

    (entry,) = await entries(world, "tool.invoked")
    assert entry["data"]["redacted"] is True
    stored = await world.blob(entry["data"]["input"]) + await world.blob(entry["data"]["output"])
    assert b"hush" not in stored
    assert b"hunter22" not in stored
    assert b"\x1b" not in stored
    assert b"\\u001b" not in stored


async def test_a_question_is_asked_by_the_rules_of_the_work_order(world: World, run: Run) -> None:
    answer = await run.post("questions", call(1, "send", to="bob"))

    assert answer.json()["answer"] is None
    (question,) = await world.backends.sessions.questions(["s-1"])
    assert (question.tool, question.approvers, question.digest) == (
        "mail/send",
        ("carol",),
        answer.json()["digest"],
    )
    assert 50 < (question.until - question.asked_at).total_seconds() <= 60
    assert len(await entries(world, "tool.asked")) == 1


async def test_a_question_waits_for_its_answer(world: World, run: Run) -> None:
    asking = asyncio.create_task(run.post("questions", {**call(1, "send", to="bob"), "waitSeconds": 20.0}))
    while not await world.backends.sessions.questions(["s-1"]):
        await asyncio.sleep(0.01)
    await world.backends.sessions.answer("s-1", "call-1-1", approved=True, review="r-1", principal="p-1")
    answer = await asyncio.wait_for(asking, 5)

    assert (answer.json()["answer"], answer.json()["review"]) == (True, "r-1")


async def test_asking_ends_with_the_run(world: World, run: Run) -> None:
    asking = asyncio.create_task(run.post("questions", {**call(1, "send", to="bob"), "waitSeconds": 20.0}))
    while not await world.backends.sessions.questions(["s-1"]):
        await asyncio.sleep(0.01)
    await world.backends.sessions.revoke("s-1", "TaskDeleted: it was deleted")
    answer = await asyncio.wait_for(asking, 10)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "RunEnded")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param({"tool": "other"}, "InvalidInput", id="of no Tool of the run"),
        pytest.param({"invocation": "call-2-1"}, "InvalidInput", id="under the name of another run"),
        pytest.param({"arguments": {"text": "a\u202eb"}}, "ArgumentsHidden", id="with what nobody sees"),
        pytest.param({"arguments": {"password": "hush"}}, "ArgumentsHidden", id="with a secret"),
    ],
)
async def test_a_question_nobody_could_answer_is_not_asked(
    world: World, run: Run, body: dict[str, Any], reason: str
) -> None:
    answer = await run.post("questions", {**call(1, "send", to="bob"), **body})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (422, reason)
    assert await world.backends.sessions.questions(["s-1"]) == []


async def test_leave_that_nobody_gave_is_not_logged(world: World, run: Run) -> None:
    answer = await run.post("invocations", {**report("send", leave="approved"), "arguments": {"to": "bob"}})

    assert answer.status_code == 409
    assert await entries(world, "tool.invoked") == []


async def test_a_call_that_needed_leave_is_not_logged_as_made_without(world: World, run: Run) -> None:
    answer = await run.post("invocations", report("send"))

    assert answer.status_code == 409
    assert "without the leave that its Tool demands" in answer.json()["error"]["message"]


async def test_calls_are_the_runs_own(world: World, run: Run) -> None:
    for call_ in ("questions", "calls", "invocations"):
        answer = await world.call("POST", f"/v1/sessions/s-1/runs/2/{call_}", run.token, json=report())
        assert answer.status_code == 403
