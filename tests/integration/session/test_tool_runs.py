"""Runs with tools, from claim to finish: real gateway, real sandboxes, harnesses that know nothing but the protocol."""

import asyncio
import json
import os
import shutil
from dataclasses import replace
from typing import Any

import pytest
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.toolbench import PRETEND, ToolBench
from tests.integration.session.world import Done, World

from triplane.audit.digest import digest_of_json
from triplane.audit.model import EventFilter
from triplane.session.isolation import Isolation

CLIENT = """
import json, urllib.error, urllib.request
def ask(method, params=None, accept="application/json, text/event-stream"):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}).encode()
    request = urllib.request.Request(os.environ["TRIPLANE_MCP_URL"], body, {
        "Content-Type": "application/json", "Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        octets = answer.read()
        if answer.headers["Content-Type"].startswith("text/event-stream"):
            octets = [line[6:] for line in octets.split(b"\\n") if line.startswith(b"data: ")][-1]
    return json.loads(octets)
def call(name, **arguments):
    found = ask("tools/call", {"name": name, "arguments": arguments})["result"]
    print(("refused: " if found["isError"] else "") + found["content"][0]["text"])
"""


def frozen(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """As the operator freezes a Tool."""
    return {"name": name, "uid": f"uid-{name}", "generation": 1, "digest": digest_of_json(spec), "spec": spec}


def pretend(world: World, mode: str = "good", **spec: Any) -> dict[str, Any]:
    shutil.copyfile(PRETEND, world.programs / "pretend.py")
    return frozen("pretend", {"stdio": {"program": "pretend.py", "args": [mode]}, **spec})


def granting(*tools: str, **axes: Any) -> dict[str, Any]:
    return {"tools": list(tools), "egress": [], "secrets": [], "paths": [], **axes}


async def logged(world: World, done: Done, kind: str = "tool.invoked") -> list[dict[str, Any]]:
    found = await world.backends.log.query(EventFilter(types=frozenset({kind}), uid=done.uid))
    return [dict(item.entry["data"]) for item in found]


async def test_a_harness_calls_its_tools_and_every_call_is_in_the_log(world: World) -> None:
    done = await world.carry_out(
        CLIENT
        + """
ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "h", "version": "1"}})
print(", ".join(tool["name"] for tool in ask("tools/list")["result"]["tools"]))
call("pretend__echo", text="hello")
call("pretend__delete_all")
leave(); reflect()
""",
        tools=[pretend(world, costMinorUnits=2, egress="External")],
        authority=granting("pretend/echo", "pretend/write"),
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    offered, echoed, refused = done.said("stdout")
    assert offered == "pretend__echo, pretend__write"
    assert echoed == "hello"
    assert refused.startswith("refused: Refused (AuthorityExceeded) on axis tools: pretend/delete_all is not granted.")
    assert "Limit: pretend/echo, pretend/write." in refused

    first, second = await logged(world, done)
    assert first | {"input": "", "output": "", "milliseconds": 0} == {
        "run": 1,
        "invocation": "call-1-1",
        "tool": "pretend/echo",
        "status": "succeeded",
        "approval": "not_required",
        "input": "",
        "output": "",
        "egress": "External",
        "costMinorUnits": 2,
        "milliseconds": 0,
        "redacted": False,
    }
    assert json.loads(await world.read(first["input"])) == {"tool": "pretend/echo", "arguments": {"text": "hello"}}
    assert json.loads(await world.read(first["output"]))["content"][0]["text"] == "hello"
    assert (second["status"], second["rule"], second["axis"]) == ("refused", "AuthorityExceeded", "tools")
    assert [item["invocation"] for item in await logged(world, done, "tool.begun")] == ["call-1-1"]
    assert done.run.result is not None
    assert done.run.result.usage.cost_minor_units == 2
    materials = [item for item in done.run.facts["materials"] if item["role"] == "tool"]
    assert [item["basis"] for item in materials] == ["content", "reported"]


async def test_the_harness_itself_still_reaches_nothing_else(world: World) -> None:
    done = await world.carry_out(
        """
        import socket, urllib.parse
        port = urllib.parse.urlsplit(os.environ["TRIPLANE_MCP_URL"]).port
        socket.create_connection(("127.0.0.1", port)).close()
        try: socket.create_connection(("127.0.0.1", GATEWAY), 2); print("reached the gateway")
        except OSError: print("nothing but its door")
        print(sorted(order["tools"][0]))
        leave(); reflect()
        """.replace("GATEWAY", str(world.port)),
        tools=[frozen("clock", {"builtin": "clock"})],
        authority=granting("clock/*"),
    )

    assert done.said("stdout")[0] == "nothing but its door", done.message


async def test_the_packages_own_client_speaks_with_it(world: World) -> None:
    bench = ToolBench(await world.kit(), world.home)
    folder = bench.vendored("mcp", "mcp")
    (world.programs / folder / "agent.py").write_text(
        "import asyncio, json, os\n"
        "from mcp import Client\n"
        "async def main():\n"
        "    async with Client(os.environ['TRIPLANE_MCP_URL']) as client:\n"
        "        listed = await client.list_tools()\n"
        "        print([tool.name for tool in listed.tools], flush=True)\n"
        "        said = await client.call_tool('pretend__echo', {'text': 'by the book'})\n"
        "        print(said.content[0].text, said.is_error, flush=True)\n"
        "        said = await client.call_tool('pretend__write', {})\n"
        "        print(said.is_error, flush=True)\n"
        "asyncio.run(main())\n"
        "open(os.environ['TRIPLANE_OUTPUTS'] + '/report.md', 'w').write('# Done\\n')\n"
        "print(json.dumps({'type': 'reflection', 'wentWell': ['all'], 'wentBadly': [], 'lessons': []}))\n"
    )
    done = await world.carry_out(
        tools=[pretend(world)],
        authority=granting("pretend/echo"),
        harness={"program": folder, "entrypoint": "agent.py", "interpreter": "python3", "args": [], "env": []},
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["['pretend__echo']", "by the book False", "True"]


async def test_a_person_gives_leave_to_exactly_this_call(world: World) -> None:
    async def person() -> None:
        sessions = world.backends.sessions
        while not (asked := await sessions.questions(["00000000-0000-4000-8000-000000000001"])):
            await asyncio.sleep(0.02)
        assert asked[0].approvers == ("carol",)
        shown = json.loads(await world.read(asked[0].digest))
        assert shown == {"tool": "pretend/echo", "arguments": {"text": "please"}}
        await sessions.answer(asked[0].session_uid, "call-1-1", approved=True, review="review-1", principal="p-carol")

    task = asyncio.create_task(person())
    done = await world.carry_out(
        CLIENT + "call('pretend__echo', text='please'); leave(); reflect()",
        tools=[pretend(world, requiresApproval=["echo"], approvers=["carol"])],
        authority=granting("pretend/*"),
        idleTimeoutSeconds=5,
    )
    await task

    assert done.said("stdout") == ["please"], done.message
    (entry,) = await logged(world, done)
    assert (entry["approval"], entry["review"], entry["approver"]) == ("approved", "review-1", "p-carol")
    assert [item["tool"] for item in await logged(world, done, "tool.asked")] == ["pretend/echo"]


async def test_nobody_answers_in_time(world: World) -> None:
    spec = {"requiresApproval": ["*"], "approvers": ["carol"], "approvalTimeoutSeconds": 1}
    done = await world.carry_out(
        CLIENT + "call('pretend__echo', text='please'); leave(); reflect()",
        tools=[pretend(world, **spec)],
        authority=granting("pretend/*"),
    )

    assert "ApprovalTimedOut" in done.said("stdout")[0]
    assert "Who can change it: carol" in done.said("stdout")[0]
    assert [entry["approval"] for entry in await logged(world, done)] == ["timed_out"]


async def test_waiting_for_a_tool_is_not_idleness(world: World) -> None:
    (world.programs / "slow.py").write_text("import time; time.sleep(3); print('done')")
    done = await world.carry_out(
        CLIENT + "call('slow__run'); leave(); reflect()",
        tools=[frozen("slow", {"exec": {"program": "slow.py"}})],
        authority=granting("slow/*"),
        idleTimeoutSeconds=1,
    )

    assert done.ending == ("succeeded", "Completed"), done.message


async def test_what_is_under_way_when_the_harness_ends_is_broken_off_and_told(world: World) -> None:
    done = await world.carry_out(
        CLIENT
        + """
import threading, time
threading.Thread(target=call, args=("pretend__slow",), daemon=True).start()
time.sleep(1)
leave(); reflect(); sys.stdout.flush(); os._exit(0)
""",
        tools=[pretend(world)],
        authority=granting("pretend/*"),
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    (entry,) = await logged(world, done)
    assert (entry["tool"], entry["status"]) == ("pretend/slow", "failed")
    assert "the run ended" in (await world.read(entry["output"])).decode()


async def test_a_tool_that_cannot_be_had_refuses_the_run(world: World) -> None:
    done = await world.carry_out(
        "leave(); reflect()",
        tools=[frozen("gone", {"stdio": {"program": "gone.py"}})],
        authority=granting("gone/*"),
    )

    assert done.ending == ("refused", "ToolUnavailable")
    assert "Tool gone cannot be had: program gone.py is not in the directory of approved programs" in done.message


@pytest.mark.parametrize("word", [True, False], ids=["with the word", "without the word"])
async def test_without_a_sandbox_the_way_to_the_tools_is_a_secret(world: World, word: bool) -> None:
    kit = replace(await world.kit(), isolation=Isolation(None, "none here"), allow_unisolated=True)
    change = "" if word else "os.environ['TRIPLANE_MCP_URL'] = 'http://127.0.0.1:%d/mcp' % __import__('urllib.parse')" \
        ".parse.urlsplit(os.environ['TRIPLANE_MCP_URL']).port\n"  # fmt: skip
    done = await world.carry_out(
        CLIENT + change + "call('clock__now'); leave(); reflect()",
        kit=kit,
        tools=[frozen("clock", {"builtin": "clock"})],
        authority=granting("clock/*"),
    )

    assert (done.ending[0] == "succeeded") is word, done.message


async def test_the_same_as_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        return  # the tests above were just that
    chosen = "every_call_is_in_the_log or sandbox_holds or reaches_nothing_else"
    files = ("tests/integration/session/test_tool_runs.py", "tests/integration/session/test_tools.py")
    done = await asyncio.to_thread(pytest_as_ordinary_user, *files, "-k", chosen)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
