"""Tools in their sandboxes, by way of a real tool host."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.session.toolbench import Told, ToolBench, make_bench, text_of

from triplane.session.given import SecretValue
from triplane.session.tools.serving import ToolUnavailable


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


async def test_an_allowed_call_is_made_and_told(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend(costMinorUnits=3, egress="Internal")}) as bed:
        assert await bed.text("pretend__echo", text="hello") == "hello"

        told = bed.told.last
        assert (told["tool"], told["operation"], told["status"], told["leave"]) == (
            "pretend",
            "echo",
            "succeeded",
            "not_required",
        )
        assert told["arguments"] == {"text": "hello"}
        assert told["output"]["content"][0]["text"] == "hello"
        assert [call["invocation"] for call in bed.told.begun] == ["call-1-1"], "announced, for it reaches out"
        assert bed.meter.usage.cost_minor_units == 3


async def test_a_call_that_reaches_nothing_is_not_announced(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend()}) as bed:
        await bed.call("pretend__echo", text="hello")

        assert bed.told.begun == []
        assert len(bed.told.ended) == 1


async def test_offered_is_what_authority_allow_and_deny_leave(bench: ToolBench) -> None:
    spec = bench.pretend(allow=["echo", "write", "delete_*"], deny=["delete_*"])
    async with bench.bed({"pretend": spec}, granted=("pretend/e*", "pretend/delete_all", "other/*")) as bed:
        assert [each["name"] for each in bed.host.definitions()] == ["pretend__echo"]


@pytest.mark.parametrize(
    ("name", "rule", "limit"),
    [
        pytest.param("pretend__write", "AuthorityExceeded", "pretend/echo", id="not granted"),
        pytest.param("pretend__delete_all", "ToolDenied", "delete_*", id="denied"),
        pytest.param("pretend__slow", "ToolNotAllowed", "echo", id="not allowed"),
        pytest.param("pretend__nothing", "UnknownOperation", "tools/list", id="not there"),
        pytest.param("other__echo", "UnknownOperation", "tools/list", id="of no Tool of the run"),
        pytest.param("", "UnknownOperation", "tools/list", id="no name at all"),
    ],
)
async def test_a_refusal_names_rule_and_limit(bench: ToolBench, name: str, rule: str, limit: str) -> None:
    spec = bench.pretend(allow=["echo", "write", "delete_*"], deny=["delete_*"])
    async with bench.bed({"pretend": spec}, granted=("pretend/echo", "pretend/delete_*", "pretend/slow")) as bed:
        result = await bed.call(name, text="x")

        assert result["isError"]
        assert rule in text_of(result)
        assert limit in text_of(result)
        assert "Who can change it: " in text_of(result)
        assert (bed.told.last["status"], bed.told.last["rule"]) == ("refused", rule)


async def test_arguments_are_held_against_the_schema(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend()}) as bed:
        result = await bed.call("pretend__echo", text=7)

        assert "InputInvalid" in text_of(result)
        assert "/text" in text_of(result)


async def test_an_authority_that_is_over_grants_nothing(bench: ToolBench) -> None:
    over = datetime(2026, 1, 1, tzinfo=UTC)
    async with bench.bed({"pretend": bench.pretend()}, expires_at=over) as bed:
        assert "AuthorityExpired" in await bed.text("pretend__echo", text="x")


async def test_a_call_that_costs_more_than_is_left_is_refused(bench: ToolBench) -> None:
    spec = bench.pretend(costMinorUnits=4)
    async with bench.bed({"pretend": spec}, budget={"costMinorUnits": 9}) as bed:
        said = [await bed.text("pretend__echo", text="x") for _ in range(3)]

        assert said[:2] == ["x", "x"]
        assert "BudgetExceeded" in said[2]
        assert "1 are left" in said[2]
        assert bed.meter.usage.cost_minor_units == 8


@pytest.mark.parametrize(
    ("answer", "status", "leave", "said"),
    [
        pytest.param(True, "succeeded", "approved", "x", id="approved"),
        pytest.param(False, "refused", "rejected", "a person said no", id="rejected"),
        pytest.param(None, "refused", "timed_out", "nobody gave leave", id="nobody answered"),
    ],
)
async def test_leave(bench: ToolBench, answer: bool | None, status: str, leave: str, said: str) -> None:
    spec = bench.pretend(requiresApproval=["echo"], approvers=["carol"])
    async with bench.bed({"pretend": spec}, told=Told(answer=answer)) as bed:
        text = await bed.text("pretend__echo", text="x")

        assert said in text
        assert (bed.told.last["status"], bed.told.last["leave"]) == (status, leave)
        assert bed.told.asked[0]["arguments"] == {"text": "x"}
        assert "person" in bed.host.definitions()[2]["description"]


async def test_a_tools_sandbox_holds_its_program_and_nothing_of_the_run(bench: ToolBench) -> None:
    spec = bench.pretend()
    spec["stdio"] |= {"env": [{"name": "MODE", "value": "$(id)"}]}
    async with bench.bed({"pretend": spec}) as bed:
        found = json.loads(await bed.text("pretend__environment"))

        assert found["work"] == ["program"]
        assert found["env"] == {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "MODE": "$(id)"}


async def test_a_secret_reaches_its_tool_and_no_result(bench: ToolBench) -> None:
    spec = bench.pretend()
    spec["stdio"] |= {"secrets": [{"name": "keys", "key": "api", "env": "API_KEY"}]}
    value = SecretValue("keys", "api", "API_KEY", "hush-hush-7", "uid", "1")
    async with bench.bed({"pretend": spec}, secrets={"pretend": (value,)}) as bed:
        text = await bed.text("pretend__environment")

        assert json.loads(text)["env"]["API_KEY"] == "[redacted]", "it was there, and did not come out"
        assert "hush-hush-7" not in json.dumps(bed.told.ended)
        assert "hush-hush-7" not in repr(bed.records)


async def test_nobody_is_asked_about_what_they_cannot_see(bench: ToolBench) -> None:
    spec = bench.pretend(requiresApproval=["echo"], approvers=["carol"])
    spec["stdio"] |= {"secrets": [{"name": "keys", "key": "api", "env": "API_KEY"}]}
    value = SecretValue("keys", "api", "API_KEY", "hush-hush-7", "uid", "1")
    async with bench.bed({"pretend": spec}, secrets={"pretend": (value,)}, told=Told(answer=True)) as bed:
        for hidden in ("say hush-hush-7", "say\u202e no", "password=hunter22"):
            assert "ArgumentsHidden" in await bed.text("pretend__echo", text=hidden)
        assert bed.told.asked == []
        assert await bed.text("pretend__echo", text="say yes") == "say yes"


async def test_a_call_that_waits_when_the_run_ends_was_not_made(bench: ToolBench) -> None:
    class Silent(Told):
        async def ask_leave(self, call: object) -> bool | None:
            await asyncio.sleep(600)
            return None

    told = Silent()
    spec = bench.pretend(requiresApproval=["echo"], approvers=["carol"], costMinorUnits=5)
    async with bench.bed({"pretend": spec}, told=told) as bed:
        calling = asyncio.create_task(bed.call("pretend__echo", text="x"))
        await asyncio.sleep(0.2)
    await asyncio.wait({calling})

    assert (told.last["status"], told.last["rule"]) == ("refused", "RunEnded")
    assert bed.meter.usage.cost_minor_units == 0


async def test_a_secret_that_was_not_given_out_keeps_the_run_from_beginning(bench: ToolBench) -> None:
    spec = bench.pretend()
    spec["stdio"] |= {"secrets": [{"name": "keys", "key": "api", "env": "API_KEY"}]}
    with pytest.raises(ToolUnavailable, match=r"Tool pretend cannot be had: .*key api of Secret keys"):
        async with bench.bed({"pretend": spec}):
            pass


async def test_a_program_that_is_not_the_pinned_one_is_not_started(bench: ToolBench) -> None:
    spec = bench.pretend()
    spec["stdio"] |= {"digest": "sha256:" + "0" * 64}
    with pytest.raises(ToolUnavailable, match="the Tool demands sha256:000"):
        async with bench.bed({"pretend": spec}):
            pass


async def test_what_a_tool_is_made_of_is_in_the_record(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend(), "clock": {"builtin": "clock"}}) as bed:
        program, said = bed.host.materials

        assert (program.name, program.basis) == ("pretend: program pretend.py", "content")
        assert program.digest is not None
        assert (said.name, said.basis) == ("pretend: pretend 7, operations", "reported")


async def test_builtins(bench: ToolBench) -> None:
    inputs = ({"name": "notes", "path": "/work/inputs/notes", "digest": "sha256:" + "1" * 64, "type": "File"},)
    tools = {"clock": {"builtin": "clock"}, "blobs": {"builtin": "blobs"}}
    async with bench.bed(tools, inputs=inputs) as bed:
        (bench.home / "run-1" / "inputs" / "notes").write_text("0123456789")

        now = await bed.call("clock__now", timezone="Asia/Tokyo")
        assert now["structuredContent"]["time"].endswith("+09:00")
        assert "no time zone" in await bed.text("clock__now", timezone="../../etc/passwd")
        assert json.loads(await bed.text("blobs__list"))["inputs"][0]["name"] == "notes"
        read = await bed.call("blobs__read", name="notes", offset=3, length=4)
        assert read["structuredContent"] == {"offset": 3, "length": 4, "size": 10, "text": "3456"}
        assert (await bed.call("blobs__read", name="notes", path="../../../etc/passwd"))["isError"]


@pytest.fixture
def exec_tool(bench: ToolBench) -> dict[str, object]:
    (bench.programs / "sum.py").write_text(
        "import json, sys\n"
        "asked = json.load(sys.stdin)\n"
        "if asked['numbers'] == []: sys.exit('nothing to add')\n"
        "print(json.dumps({'sum': sum(asked['numbers'])}))\n"
    )
    schema = {"type": "object", "properties": {"numbers": {"type": "array", "items": {"type": "integer"}}}}
    return {"exec": {"program": "sum.py", "inputSchema": schema}, "description": "Adds."}


async def test_a_program_is_run_for_each_call(bench: ToolBench, exec_tool: dict[str, object]) -> None:
    async with bench.bed({"sum": exec_tool}) as bed:
        assert (await bed.call("sum__run", numbers=[1, 2, 3]))["structuredContent"] == {"sum": 6}
        failed = await bed.call("sum__run", numbers=[])
        assert failed["isError"]
        assert "nothing to add" in text_of(failed)
        assert [each["status"] for each in bed.told.ended] == ["succeeded", "failed"]


async def test_a_program_over_its_time_is_killed(bench: ToolBench) -> None:
    (bench.programs / "late.py").write_text("import time; time.sleep(600)\n")
    async with bench.bed({"late": {"exec": {"program": "late.py"}, "timeoutSeconds": 1}}) as bed:
        assert "longer than 1 s" in await bed.text("late__run")
        assert bed.told.last["status"] == "timed_out"


@pytest.fixture
def vendored(bench: ToolBench) -> dict[str, object]:
    name = bench.vendored("mcp-server-time", "mcp_server_time")
    return {"stdio": {"program": name, "entrypoint": "serve.py"}}


async def test_a_real_server_from_the_package_registry(bench: ToolBench, vendored: dict[str, object]) -> None:
    async with bench.bed({"time": {**vendored, "deny": ["get_*"]}}) as bed:
        assert [each["name"] for each in bed.host.definitions()] == ["time__convert_time"]
        result = await bed.call("time__convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo")
        assert not result["isError"], result
        assert "21:00" in text_of(result)
        assert bed.host.materials[1].name.startswith("time: mcp-time ")
