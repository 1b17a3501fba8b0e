"""Getting at a denied operation by another spelling: case, Unicode, prefixes, separators."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.integration.session.toolbench import ToolBench, make_bench

from triplane.domain import toolcall
from triplane.domain.pattern import fits

pytestmark = pytest.mark.attacks
SPELLINGS = (
    "pretend__DELETE_ALL",
    "pretend__Delete_all",
    "PRETEND__delete_all",
    "pretend__delete_all ",
    " pretend__delete_all",
    "pretend__delete_all\x00",
    "pretend__\uff44elete_all",  # fullwidth
    "pretend__d\u0435lete_all",  # Cyrillic
    "pretend__delete\u200b_all",
    "pretend__delete%5Fall",
    "pretend/delete_all",
    "pretend__../pretend__delete_all",
    "pretend____delete_all",
    "pretend__echo__delete_all",
    "pretend.delete_all",
    "delete_all",
)


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


def exactly(patterns: Iterable[str], operation: str) -> str | None:
    """A deny that is held against the very spelling alone."""
    return next((each for each in patterns if fits(each, operation)), None)


async def test_a_server_that_lists_it_in_capitals_gets_around_an_exact_deny(
    bench: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolcall, "matched", exactly)
    async with bench.bed({"pretend": bench.pretend("shouting", deny=["delete_*"])}) as bed:
        assert "pretend__DELETE_ALL" in [each["name"] for each in bed.host.definitions()]
        assert not (await bed.call("pretend__DELETE_ALL"))["isError"]


async def test_deny_holds_in_any_case(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("shouting", deny=["delete_*"])}) as bed:
        assert not [each for each in bed.host.definitions() if "delete" in each["name"].lower()]
        assert "ToolDenied" in await bed.text("pretend__DELETE_ALL")


async def test_so_does_the_need_of_leave(bench: ToolBench) -> None:
    spec = bench.pretend("shouting", requiresApproval=["delete_*"], approvers=["carol"])
    async with bench.bed({"pretend": spec}) as bed:
        assert "ApprovalTimedOut" in await bed.text("pretend__DELETE_ALL")


async def test_no_spelling_reaches_it(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend(deny=["delete_*"])}) as bed:
        for spelling in SPELLINGS:
            result = await bed.call(spelling)
            assert result["isError"], spelling
        assert {each["status"] for each in bed.told.ended} == {"refused"}
        assert len(bed.told.ended) == len(SPELLINGS), "each is told"


async def test_a_server_cannot_smuggle_names_in(bench: ToolBench) -> None:
    async with bench.bed({"pretend": bench.pretend("odd-names")}) as bed:
        names = [each["name"] for each in bed.host.definitions()]
        assert len(names) == 7, names
