"""A server that changes what its operations are once somebody has agreed to them."""

from pathlib import Path

import pytest
from tests.integration.session.toolbench import Told, ToolBench, make_bench

from triplane.session.tools import servers

pytestmark = pytest.mark.attacks


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


async def _unchanged(*_: object, **__: object) -> None:
    return None


async def test_unwatched_the_changed_operation_is_called(bench: ToolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers._Mcp, "changed", _unchanged)
    async with bench.bed({"pretend": bench.pretend("rug-pull")}) as bed:
        assert [await bed.text("pretend__echo", text="x") for _ in range(2)] == ["x", "x"]


async def test_once_it_says_that_it_changed_it_is_refused(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("rug-pull")}) as bed:
        assert await bed.text("pretend__echo", text="x") == "x"
        said = await bed.text("pretend__echo", text="x")
        assert "ToolChanged" in said
        assert "defines it differently by now" in said
        assert bed.told.last["rule"] == "ToolChanged"


async def test_what_it_no_longer_lists_is_refused(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("vanishing")}) as bed:
        await bed.text("pretend__echo", text="x")
        assert "no longer lists it" in await bed.text("pretend__echo", text="x")


async def test_a_new_description_never_reaches_the_model(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("silent-rug-pull")}) as bed:
        before = bed.host.definitions()
        await bed.text("pretend__echo", text="x")
        assert bed.host.definitions() == before
        listed = (await bed.post("tools/list")).json()["result"]["tools"]
        assert "/etc/shadow" not in str(listed)


async def test_where_a_person_agrees_it_is_looked_at_though_it_says_nothing(bench: ToolBench) -> None:
    spec = bench.pretend("silent-rug-pull", requiresApproval=["echo"], approvers=["carol"])
    async with bench.bed({"pretend": spec}, told=Told(answer=True)) as bed:
        assert await bed.text("pretend__echo", text="x") == "x"
        assert "ToolChanged" in await bed.text("pretend__echo", text="x")
        assert len(bed.told.asked) == 1, "nobody is asked about what is not what was offered"
