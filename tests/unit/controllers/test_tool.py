"""The Tool kind, and Tasks that name Tools: found, frozen, waited for, held against authority."""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_crashes import TASK, world

from triplane.api.tool import Tool
from triplane.audit.digest import digest_of_json
from triplane.domain.conditions import condition

CLOCK = {"builtin": "clock"}


async def settled(*tools: str, made: MemoryWorld | None = None, **task: Any) -> MemoryWorld:
    made = made or world()
    made.server.put("Task", "t", {**TASK, "tools": list(tools), **task}, "alice")
    made.look()
    await made.settle()
    return made


def stated(made: MemoryWorld, kind: str, name: str, type_: str) -> tuple[str, str, str]:
    found = condition(made.server.objects[kind, NAMESPACE, name].get("status") or {}, type_)
    assert found is not None, made.server.objects[kind, NAMESPACE, name]
    return found["status"], found["reason"], found["message"]


async def test_a_tool_that_can_be_offered_is_ready() -> None:
    made = world()
    made.server.put("Tool", "clock", CLOCK, "alice")
    await made.settle_task()

    assert stated(made, "Tool", "clock", "Ready")[:2] == ("True", "Ready")
    assert stated(made, "Tool", "clock", "Stalled")[:2] == ("False", "NotStalled")


async def test_a_schema_that_is_none_stalls_it_and_an_edit_heals_it() -> None:
    made = world()
    made.server.put("Tool", "sum", {"exec": {"program": "sum.py", "inputSchema": {"type": "objekt"}}}, "alice")
    await made.settle_task()
    assert stated(made, "Tool", "sum", "Stalled")[:2] == ("True", "ToolInvalid")
    assert "the schema is invalid at /type" in stated(made, "Tool", "sum", "Ready")[2]

    made.server.edit("Tool", "sum", exec={"program": "sum.py", "inputSchema": {"type": "object"}})
    await made.settle_task()
    assert stated(made, "Tool", "sum", "Ready")[0] == "True"


async def test_a_task_waits_for_a_tool_that_is_not_there_and_goes_on_when_it_is() -> None:
    made = await settled("clock")
    assert stated(made, "Task", "t", "ResolvedRefs") == (
        "False",
        "ToolNotFound",
        "Tool clock does not exist; apply it",
    )
    assert await made.run_next() is None

    made.server.put("Tool", "clock", CLOCK, "alice")
    await made.settle_task()
    claim = await made.run_next()
    assert claim is not None
    assert [item["name"] for item in claim.work_order["tools"]] == ["clock"]


async def test_a_tool_that_cannot_be_offered_is_as_good_as_none() -> None:
    made = world()
    made.server.put("Tool", "sum", {"exec": {"program": "sum.py", "inputSchema": {"type": "array"}}}, "alice")
    await settled("sum", made=made)

    assert stated(made, "Task", "t", "ResolvedRefs")[1] == "ToolInvalid"


async def test_tools_are_frozen_with_the_session() -> None:
    made = world()
    tool = made.server.put("Tool", "clock", CLOCK, "alice")
    await settled("clock", made=made)
    (session,) = made.server.of("AgentSession")
    materials = [item for item in session["spec"]["snapshot"] if item["role"] == "tool"]

    assert materials == [
        {
            "role": "tool",
            "name": "clock",
            "uid": tool["metadata"]["uid"],
            "generation": 1,
            "digest": digest_of_json(tool["spec"]),
            "basis": "content",
        }
    ]
    claim = await made.run_next()
    assert claim is not None
    (frozen,) = claim.work_order["tools"]
    assert (frozen["digest"], frozen["spec"]) == (materials[0]["digest"], CLOCK)


async def test_a_tool_that_changes_before_the_launch_is_another_session() -> None:
    made = world()
    made.server.put("Tool", "clock", CLOCK, "alice")
    await settled("clock", made=made)
    made.server.edit("Tool", "clock", deny=["now"])
    await made.settle_task()
    claim = await made.run_next()

    assert claim is not None
    assert claim.work_order["tools"][0]["spec"] == {**CLOCK, "deny": ["now"]}


async def test_a_reviewer_is_offered_none() -> None:
    made = world()
    made.server.put("Tool", "clock", CLOCK, "alice")
    await settled("clock", made=made)
    while (claim := await made.run_next()) is not None:
        await made.settle()
        if claim.role == "reviewer":
            assert claim.work_order["tools"] == []
            return
    pytest.fail("nobody reviewed")


@pytest.mark.parametrize(
    ("granted", "launches"),
    [
        pytest.param(["clock/*"], True, id="the whole Tool"),
        pytest.param(["clock/now"], True, id="one operation of it"),
        pytest.param(["**"], True, id="everything"),
        pytest.param(["clocks/*"], False, id="another Tool"),
        pytest.param(["*"], False, id="a star that does not cross the slash"),
        pytest.param([], False, id="nothing"),
    ],
)
async def test_it_launches_only_where_authority_grants_the_tool(granted: list[str], launches: bool) -> None:
    made = world()
    made.server.put("Tool", "clock", CLOCK, "alice")
    await settled("clock", made=made, authority={"mayUse": {"tools": granted}})

    assert (await made.run_next() is not None) is launches
    if not launches:
        status, reason, message = stated(made, "Task", "t", "Stalled")
        assert (status, reason) == ("True", "AuthorityExceeded")
        assert "tools" in message
        assert "clock/*" in message


SECRET = {"name": "keys", "key": "api", "env": "API"}


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"stdio": {"program": "x.py", "secrets": [SECRET]}}, "keys"),
        ({"http": {"url": "https://tools.example/mcp"}}, "tools.example:443"),
    ],
    ids=["its secret must be granted", "its host must be granted"],
)
async def test_what_a_tool_needs_is_demanded_with_it(spec: dict[str, Any], value: str) -> None:
    Tool.model_validate(
        {"metadata": {"name": "t"}, "spec": spec, "kind": "Tool", "apiVersion": "triplane.dev/v1alpha1"}
    )
    made = world()
    made.server.put("Tool", "needy", spec, "alice")
    await settled("needy", made=made)

    assert await made.run_next() is None
    status, reason, message = stated(made, "Task", "t", "Stalled")
    assert (status, reason) == ("True", "AuthorityExceeded")
    assert value in message
