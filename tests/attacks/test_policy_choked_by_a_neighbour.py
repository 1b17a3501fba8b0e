"""Attack: an object that a Policy chokes on, so that the Policy is not asked for a while, ends the neighbours' runs."""

import asyncio

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import healed, policy, running, stalled, world

from triplane.adapters.cel.policies import CelPolicies
from triplane.api.policy import Stage
from triplane.controllers.key import Key
from triplane.domain.policy import KnownPolicy, PolicyDecision, PolicyRequest
from triplane.domain.session import Claim

pytestmark = pytest.mark.attacks
NEIGHBOUR = PolicyRequest(Stage.LAUNCH, "LAUNCH", "Task", NAMESPACE, "neighbour", {"metadata": {}})


def engine(made: MemoryWorld) -> CelPolicies:
    found = made._reconcilers._context.policies
    assert isinstance(found, CelPolicies)
    return found


def choke(made: MemoryWorld) -> None:
    """The Policy is edited, and the neighbour's Task is the first that it is asked about."""
    made.server.edit("Policy", "p", contact="another board")
    engine(made)._bar(KnownPolicy.of(made.server.objects["Policy", NAMESPACE, "p"]), NEIGHBOUR)
    made.look()


def relent(made: MemoryWorld) -> None:
    """The time is over for which it is not asked."""
    now = asyncio.get_running_loop().time()
    engine(made)._barred = dict.fromkeys(engine(made)._barred, now)


async def attacked() -> tuple[MemoryWorld, Claim]:
    made = world()
    made.server.put("Policy", "p", policy("agent.metadata.name == 'writer'"), "root")
    made.look()
    claim = await running(made)
    choke(made)
    await made.settle()
    return made, claim


async def revoked(made: MemoryWorld, claim: Claim) -> str | None:
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    return view.revoked


async def test_if_no_word_were_taken_for_a_no_it_would_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyDecision, "unasked", property(lambda _: False))
    assert "is asked again" in (await revoked(*await attacked()) or "")


async def test_what_is_at_work_goes_on_and_the_policy_is_asked_when_it_can_be() -> None:
    made, claim = await attacked()
    assert await revoked(made, claim) is None
    made.server.edit("Policy", "p", **policy("false"))
    made.look()
    await made.settle()
    assert (await revoked(made, claim) or "").startswith("PolicyDenied: ")


async def test_nothing_is_launched_meanwhile_and_it_is_looked_at_again_by_itself() -> None:
    made = world()
    made.server.put("Policy", "p", policy("true"), "root")
    choke(made)
    await made.settle()
    assert (stalled(made) or ("",))[0] == "PolicyDenied"
    assert await made.sessions.claim("r", "i") is None
    key = Key.of(made.server.objects["Task", NAMESPACE, "t"])
    again = await made.reconcile(key)
    assert again is not None
    assert again <= 15
    relent(made)
    await made.reconcile(key)
    assert await healed(made)
