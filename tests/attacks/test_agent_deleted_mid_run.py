"""Attack: an Agent is deleted while its session works, so that nothing taken back later concerns it any more."""

from collections.abc import Callable

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import OPEN, policy, running, world

from triplane.controllers.narrowing import Narrowing
from triplane.controllers.task_limits import LimitReader, Subject
from triplane.domain.session import Claim

pytestmark = pytest.mark.attacks


def narrow(made: MemoryWorld) -> None:
    made.server.edit("Graph", "g", authority={"mayUse": {"egress": []}, "mayDelegate": {"egress": []}})


def deny(made: MemoryWorld) -> None:
    made.server.put("Policy", "p", policy("false"), "root")


TAKEN_BACK = [
    pytest.param(narrow, "AuthorityNarrowed", id="the Graph is narrowed"),
    pytest.param(deny, "PolicyDenied", id="a Policy denies it"),
]


async def deleted(made: MemoryWorld, kind: str, name: str) -> None:
    obj = made.server.objects[kind, NAMESPACE, name]
    await made.server.delete(obj)
    made.index.remove(obj)
    await made._reconcilers.gone(kind, obj)


async def attacked(take_back: Callable[[MemoryWorld], None]) -> tuple[MemoryWorld, Claim]:
    made = world({"authority": OPEN}, authority=OPEN)
    claim = await running(made)
    await deleted(made, "Agent", "writer")
    await made.settle_task()
    take_back(made)
    await made.settle_task()
    return made, claim


async def revoked(made: MemoryWorld, claim: Claim) -> str | None:
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    return view.revoked


@pytest.mark.parametrize(("take_back", "reason"), TAKEN_BACK)
async def test_if_only_sessions_of_agents_that_exist_were_looked_at_it_would_go_on(
    monkeypatch: pytest.MonkeyPatch, take_back: Callable[[MemoryWorld], None], reason: str
) -> None:
    subjects = LimitReader._subjects

    def of_those_there_are(self: LimitReader, *given: object) -> list[Subject]:
        index = self._context.index
        return [item for item in subjects(self, *given) if index.by_uid(item.placement.agent_uid)]  # type: ignore[arg-type]

    monkeypatch.setattr(LimitReader, "_subjects", of_those_there_are)
    assert await revoked(*await attacked(take_back)) is None, reason


@pytest.mark.parametrize(("take_back", "reason"), TAKEN_BACK)
async def test_its_session_is_stopped_all_the_same(take_back: Callable[[MemoryWorld], None], reason: str) -> None:
    assert (await revoked(*await attacked(take_back)) or "").startswith(f"{reason}: ")


async def test_deleting_the_agent_alone_disturbs_no_run() -> None:
    assert await revoked(*await attacked(lambda made: None)) is None


async def claimed_after(kind: str) -> bool:
    made = world()
    await made.settle()
    await deleted(made, kind, "writer")
    return await made.sessions.claim("r", "i") is not None


@pytest.mark.parametrize("kind", ["Agent", "Harness"])
async def test_a_permit_that_is_left_standing_is_claimed(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async def leave(*_: object) -> None: ...

    monkeypatch.setattr(Narrowing, "gone", leave)
    assert await claimed_after(kind)


@pytest.mark.parametrize("kind", ["Agent", "Harness"])
async def test_what_was_permitted_before_it_was_deleted_is_claimed_no_more(kind: str) -> None:
    assert not await claimed_after(kind)
