"""Leave given for one call, used for another: other arguments, another operation, the same call again, another run."""

from pathlib import Path
from typing import Any

import pytest
from tests.integration.session.test_tool_runs import CLIENT, granting, logged, pretend
from tests.integration.session.world import Done, World, make_world

from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.domain.session import Question
from triplane.gateway import tools as reports

pytestmark = pytest.mark.attacks
SPEC: dict[str, Any] = {
    "requiresApproval": ["echo", "write"],
    "approvers": ["carol"],
    "approvalTimeoutSeconds": 2,
}


def approve_first(monkeypatch: pytest.MonkeyPatch, *, weak: bool) -> None:
    """Carol approves the first call she is asked about, and no other. ``weak``: what she approved is not looked at."""
    ask = MemorySessionStore.ask
    approved: list[Question] = []

    async def asked(self: MemorySessionStore, question: Question) -> Question:
        kept = await ask(self, question)
        if not approved or (weak and kept.answer is None):
            approved.append(kept)
            await self.answer(kept.session_uid, kept.invocation, approved=True, review="r-1", principal="carol")
            return await ask(self, question)
        return kept

    monkeypatch.setattr(MemorySessionStore, "ask", asked)


async def carried_out(home: Path, harness: str) -> tuple[Done, list[dict[str, Any]]]:
    world: World = await make_world(home)
    async with world.serving():
        done = await world.carry_out(
            CLIENT + harness + "\nleave(); reflect()",
            tools=[pretend(world, **SPEC)],
            authority=granting("pretend/*"),
        )
        return done, await logged(world, done)


REPLAYS = [
    pytest.param("call('pretend__echo', text='other')", id="other arguments"),
    pytest.param("call('pretend__write', text='agreed')", id="another operation"),
    pytest.param("call('pretend__echo', text='agreed')", id="the same call once more"),
    pytest.param("call('pretend__echo', text='agreed', extra=1)", id="one argument more"),
]


@pytest.mark.parametrize("second", REPLAYS)
async def test_leave_that_is_not_bound_to_the_call_carries_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    approve_first(monkeypatch, weak=True)
    done, _ = await carried_out(tmp_path / "home", "call('pretend__echo', text='agreed')\n" + second)
    assert not any(line.startswith("refused") for line in done.said("stdout")), done.message


@pytest.mark.parametrize("second", REPLAYS)
async def test_leave_is_for_one_call_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    approve_first(monkeypatch, weak=False)
    done, entries = await carried_out(tmp_path / "home", "call('pretend__echo', text='agreed')\n" + second)
    first, again = done.said("stdout")
    assert first == "agreed"
    assert "ApprovalTimedOut" in again
    assert [entry["approval"] for entry in entries] == ["approved", "timed_out"]


async def test_a_host_that_claims_leave_for_other_arguments_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway holds what was reported against what was asked; with that check taken out the lie is logged."""
    for weak, expected in ((True, ["approved"]), (False, [])):
        with monkeypatch.context() as patch:
            approve_first(patch, weak=False)
            if weak:
                patch.setattr(reports, "_leave_of", _believed)
            _lying(patch)
            _, entries = await carried_out(tmp_path / f"home-{weak}", "try: call('pretend__echo', text='agreed')\n"
                                           "except KeyError: pass")  # fmt: skip
            assert [entry["approval"] for entry in entries] == expected


async def _believed(*_: object) -> None:
    return None


def _lying(patch: pytest.MonkeyPatch) -> None:
    from triplane.session.client import RunGateway

    end_call = RunGateway.end_call

    async def lied(self: RunGateway, call: dict[str, Any]) -> None:
        await end_call(self, {**call, "arguments": {"text": "something else"}})

    patch.setattr(RunGateway, "end_call", lied)
