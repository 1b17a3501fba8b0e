"""An MCP server that floods, stays silent, lies about the protocol or hands out poison: the runner and its other runs
do not notice."""

import asyncio
import time
from pathlib import Path

import pytest
from tests.integration.session.processes import running, until
from tests.integration.session.toolbench import ToolBench, make_bench

from triplane.session.tools import peer, results, rpc, servers
from triplane.session.tools.serving import ToolUnavailable

pytestmark = pytest.mark.attacks


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


async def test_without_a_limit_its_result_is_passed_on_whole(bench: ToolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_RESULT", 1 << 30)
    async with bench.bed({"pretend": bench.pretend()}) as bed:
        assert len(await bed.text("pretend__huge")) == 2 << 20


async def test_a_huge_result_is_not_passed_on(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend()}) as bed:
        text = await bed.text("pretend__huge")
        assert "at most 1048576 are passed on" in text
        assert bed.told.last["status"] == "failed"


async def test_without_a_time_limit_it_holds_the_call(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend(timeoutSeconds=3600)}) as bed:
        calling = asyncio.create_task(bed.call("pretend__slow"))
        assert not (await asyncio.wait({calling}, timeout=3))[0]
        calling.cancel()


async def test_one_that_never_answers_costs_its_time_and_no_more(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend(timeoutSeconds=1)}) as bed:
        began = time.monotonic()
        assert "out of time" in await bed.text("pretend__slow")
        assert time.monotonic() - began < 5
        assert bed.told.last["status"] == "timed_out"


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        pytest.param("mute", "not ready within|did not answer", id="never shakes hands"),
        pytest.param("endless", "more than 4194304 octets", id="sends a line without end"),
        pytest.param("flood", "messages or .* nobody asked for", id="floods"),
        pytest.param("wide", "16777216 octets nobody asked for", id="floods with few large messages"),
        pytest.param("heavy", "operations, or 1048576 octets", id="lists an operation that takes long to clean"),
        pytest.param("deep", "broke the protocol", id="sends a hundred thousand brackets"),
        pytest.param("old", "it speaks MCP '1999-01-01'", id="speaks another protocol"),
        pytest.param("twice", "it lists echo twice", id="lists an operation twice"),
    ],
)
async def test_one_that_breaks_the_protocol_is_not_used(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch, mode: str, problem: str
) -> None:
    for module in (peer, servers):
        monkeypatch.setattr(module, "START_SECONDS", 4.0 if mode == "mute" else 30.0)
    late = 0.0

    async def beat() -> None:
        nonlocal late
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            late = max(late, time.monotonic() - before - 0.05)

    beating = asyncio.create_task(beat())
    with pytest.raises(ToolUnavailable, match=problem):
        async with bench.bed({"pretend": bench.pretend(mode)}):
            pass
    beating.cancel()
    assert late < 2.0, "the other runs of this process were held up"
    await until(lambda: not running(f"{bench.home}/run-1/tools"))


async def test_one_that_dies_says_so_and_the_run_goes_on(bench: ToolBench) -> None:
    tools = {"pretend": bench.pretend("dies"), "clock": {"builtin": "clock"}}
    async with bench.bed(tools) as bed:
        assert "the disk is on fire" in await bed.text("pretend__echo", text="x")
        assert "failed" in await bed.text("pretend__echo", text="x")
        assert not (await bed.call("clock__now"))["isError"]


async def test_what_is_no_result_is_not_passed_on(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("no-result")}) as bed:
        assert "no CallToolResult" in await bed.text("pretend__echo", text="x")


async def test_it_gets_neither_the_model_nor_people(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("asks-back")}) as bed:
        await until(lambda: any("-32601" in str(record.payload.get("text")) for record in bed.records))


async def test_what_a_model_reads_hides_nothing(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("hidden")}) as bed:
        (shown,) = [each for each in bed.host.definitions() if each["name"] == "pretend__echo"]
        assert shown["description"] == "Says\\u202e what it is\\u200b told."


async def test_a_schema_of_its_making_cannot_stop_the_clock(bench: ToolBench) -> None:
    """A regular expression that takes longer than the universe: checked in this process it would hold every run."""
    async with bench.bed({"pretend": bench.pretend("regex")}) as bed:
        began, beats = time.monotonic(), 0
        calling = asyncio.create_task(bed.text("pretend__echo", text="a" * 60 + "!"))
        while not calling.done():
            await asyncio.sleep(0.05)
            beats += 1
        assert "cannot be checked" in await calling
        assert time.monotonic() - began < 30
        assert beats > 10, "the loop stood still"
        assert await bed.text("pretend__echo", text="aaa") == "aaa"


def test_checked_in_place_it_does_stop_the_clock() -> None:
    from triplane.session.tools.checking import problem_here

    schema = {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}}
    spent = []
    for length in (16, 20):
        began = time.monotonic()
        problem_here(schema, {"text": "a" * length + "!"})
        spent.append(time.monotonic() - began)
    assert spent[1] > 4 * spent[0], "each further letter doubles it"


def test_a_message_is_measured_before_it_is_read() -> None:
    with pytest.raises(rpc.BadMessage, match="octets"):
        rpc.read(b" " * (rpc.MAX_MESSAGE + 1))
