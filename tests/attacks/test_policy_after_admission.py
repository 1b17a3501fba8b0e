"""A Policy that comes, changes or goes after a Task was admitted: before its launch, and between permit and claim.

Each attack first succeeds against an operator that believes its mirror, or leaves permits in force.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_launch_economy import answer_wanted
from tests.unit.controllers.test_task_crashes import world

from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.controllers.launch_policies import LaunchPolicies
from triplane.domain.session import Claim

pytestmark = pytest.mark.attacks

DENY: dict[str, Any] = {
    "match": {"kinds": ["Task"]},
    "stages": ["Launch"],
    "validations": [{"expression": "object.spec.objective != 'Write the report'", "message": "not this"}],
}
TASK_KEY = Key("Task", NAMESPACE, "t")


def believe_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weakened check: Policies are those the watch has brought so far."""

    async def mirrored(self: LaunchPolicies, namespace: str) -> Sequence[Mapping[str, Any]]:
        return tuple(self._context.index.list("Policy", namespace))

    monkeypatch.setattr(LaunchPolicies, "read", mirrored)


async def asked_for(made: MemoryWorld) -> Claim | None:
    """A runner asks, the operator hears of it, the runner asks again."""
    claim = await made.sessions.claim("r", "i")
    if claim is not None:
        return claim
    await answer_wanted(made)
    return await made.sessions.claim("r", "i")


async def admitted(**policies: dict[str, Any]) -> MemoryWorld:
    """A Task that was admitted while these Policies were there; its session waits, its permit has expired."""
    made = world()
    for name, spec in policies.items():
        made.server.put("Policy", name, spec, "admin")
    made.look()
    await made.settle()
    made.clock.advance(60)
    return made


def permitted(made: MemoryWorld) -> EventFilter:
    return EventFilter(types=frozenset({"run.permitted"}))


@pytest.mark.parametrize("weak", [True, False], ids=["the mirror is believed", "the API server is asked"])
async def test_a_policy_the_watch_has_not_brought_yet(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:
        believe_the_mirror(monkeypatch)
    made = await admitted()
    made.server.put("Policy", "deny", DENY, "admin")  # no look: the watch is slow
    assert (await asked_for(made) is not None) is weak


@pytest.mark.parametrize("weak", [True, False], ids=["the mirror is believed", "the API server is asked"])
async def test_an_edit_the_watch_has_not_brought_yet(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:
        believe_the_mirror(monkeypatch)
    made = await admitted(deny={**DENY, "validations": [{"expression": "true"}]})
    made.server.edit("Policy", "deny", validations=DENY["validations"])
    assert (await asked_for(made) is not None) is weak


@pytest.mark.parametrize("weak", [True, False], ids=["the mirror is believed", "the API server is asked"])
async def test_a_leave_to_go_unenforced_ends_with_its_policy(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:
        believe_the_mirror(monkeypatch)
    leave = {"match": {"kinds": ["Task"]}, "stages": ["Launch"], "allowUnenforced": ["egress"]}
    made = await admitted(leave=leave)
    del made.server.objects["Policy", NAMESPACE, "leave"]
    claim = await asked_for(made)
    assert claim is not None
    assert ("allowUnenforced" in claim.run_inputs) is weak


@pytest.mark.parametrize("weak", [True, False], ids=["permits stay in force", "a change takes them back"])
async def test_a_policy_between_permit_and_claim(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world()
    if weak:

        async def left_alone(namespace: str | None, reason: str) -> int:
            return await made.sessions.revocation_revision()

        monkeypatch.setattr(made.sessions, "void_permits", left_alone)
    await made.settle()
    assert len(await made.log.query(permitted(made))) == 1, "the permit is there, and nobody has claimed it"
    policy = made.server.put("Policy", "deny", DENY, "admin")
    made.index.observe(policy)
    await made.reconcile(Key("Policy", NAMESPACE, "deny"))
    claim = await made.sessions.claim("r", "i")
    assert (claim is not None) is weak
    if not weak:
        await answer_wanted(made)
        assert await made.sessions.claim("r", "i") is None, "and no new one is given"
        assert made.server.objects["Task", NAMESPACE, "t"]["status"]["state"] == "blocked"


async def test_what_was_decided_stands_in_the_permit() -> None:
    made = await admitted(allow={**DENY, "validations": [{"expression": "true"}]})
    before = (await made.log.query(permitted(made)))[-1].entry["data"]["policyDigest"]
    made.server.edit("Policy", "allow", validations=[{"expression": "1 == 1"}])
    assert await asked_for(made) is not None
    after = (await made.log.query(permitted(made)))[-1].entry["data"]["policyDigest"]
    assert before != after
