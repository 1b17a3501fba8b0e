"""A harness calls what its authority does not grant, though the tool's server has it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.session.toolbench import make_bench

from triplane.api.tool import ToolSpec
from triplane.domain import toolcall
from triplane.domain.toolcall import Allowed
from triplane.session.tools import host, offer

pytestmark = pytest.mark.attacks
GRANTED = ("pretend/echo", "other/*", "pretend", "/delete_all", "pretend/", "*/echo*x")


async def test_with_the_rules_switched_off_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "refused_by_rules", lambda *_: None)
    monkeypatch.setattr(host, "decide", lambda *_, **__: Allowed(needs_leave=False))
    bench = await make_bench(tmp_path)
    async with bench.bed({"pretend": bench.pretend()}, granted=GRANTED) as bed:
        assert not (await bed.call("pretend__delete_all"))["isError"]


async def test_it_is_neither_shown_nor_called(tmp_path: Path) -> None:
    bench = await make_bench(tmp_path)
    async with bench.bed({"pretend": bench.pretend()}, granted=GRANTED) as bed:
        assert [each["name"] for each in bed.host.definitions()] == ["pretend__echo"]
        assert "AuthorityExceeded" in await bed.text("pretend__delete_all")


async def test_offering_it_by_mistake_does_not_make_it_callable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "refused_by_rules", lambda *_: None)  # the list alone is wrong
    bench = await make_bench(tmp_path)
    async with bench.bed({"pretend": bench.pretend()}, granted=GRANTED) as bed:
        assert "pretend__delete_all" in [each["name"] for each in bed.host.definitions()]
        assert "AuthorityExceeded" in await bed.text("pretend__delete_all")


def test_nothing_is_granted_by_an_absent_axis() -> None:
    rules = toolcall.Rules(None, {"t": ToolSpec(builtin="clock")})
    found = toolcall.decide(rules, "t", "now", cost_left=None, now=datetime.now(UTC))
    assert isinstance(found, toolcall.Refusal)
