"""Arguments that mean something to a shell, a command line, a path or a protocol: to a tool they are text."""

import json
from pathlib import Path

import pytest
from tests.integration.session.toolbench import ToolBench, make_bench

pytestmark = pytest.mark.attacks
SMUGGLED = (
    "; touch /tmp/owned",
    "$(touch /tmp/owned)",
    "`touch /tmp/owned`",
    "| tee /tmp/owned",
    "&& touch /tmp/owned",
    "--help",
    "-c 'touch /tmp/owned'",
    "a\nb",
    '"}\n{"jsonrpc":"2.0","id":99,"method":"tools/call","params":{"name":"delete_all","arguments":{}}}',
    "../../../../etc/passwd",
    "%s%n",
    "'; DROP TABLE log; --",
)
TOOL = """
import json, os, subprocess, sys
text = json.load(sys.stdin)["text"]
if sys.argv[1:] == ["weak"] or os.path.exists("/work/program/weak"):
    subprocess.run("echo " + text, shell=True)
print(json.dumps({"text": text, "owned": os.path.exists("/tmp/owned"), "argv": sys.argv[1:]}))
"""


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


async def test_a_tool_that_hands_arguments_to_a_shell_is_owned(bench: ToolBench) -> None:
    """What would happen if the host built a command line: the very texts do work."""
    (bench.programs / "tool").mkdir()
    (bench.programs / "tool" / "main.py").write_text(TOOL)
    (bench.programs / "tool" / "weak").touch()
    async with bench.bed({"t": {"exec": {"program": "tool", "entrypoint": "main.py"}}}) as bed:
        found = await bed.text("t__run", text=SMUGGLED[0])
        assert json.loads(found.splitlines()[-1])["owned"] is True


@pytest.mark.parametrize("text", SMUGGLED)
async def test_arguments_reach_a_program_literally(bench: ToolBench, text: str) -> None:
    (bench.programs / "tool.py").write_text(TOOL)
    async with bench.bed({"t": {"exec": {"program": "tool.py"}}}) as bed:
        found = (await bed.call("t__run", text=text))["structuredContent"]
        assert found == {"text": text, "owned": False, "argv": []}


async def test_arguments_reach_a_server_literally(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend()}) as bed:
        assert [await bed.text("pretend__echo", text=text) for text in SMUGGLED] == list(SMUGGLED)
        assert {each["operation"] for each in bed.told.ended} == {"echo"}, "no second message came of any of them"
