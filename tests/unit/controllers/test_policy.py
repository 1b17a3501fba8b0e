"""Policies over the reconcilers: usable or not, what they stop at launch, and what their status sums up."""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_launch_economy import answer_wanted
from tests.unit.controllers.test_task_crashes import TASK, world

from triplane.audit.model import EventFilter, Recorded
from triplane.controllers import policy as module
from triplane.controllers.key import Key

LAUNCH: dict[str, Any] = {"match": {"kinds": ["Task"]}, "stages": ["Launch"]}


def denying(rule: str = "false", **more: Any) -> dict[str, Any]:
    return {**LAUNCH, "validations": [{"expression": rule, "message": "not today"}], **more}


async def with_task(made: MemoryWorld) -> None:
    """The world has one: ``t``."""
    made.look()
    await made.settle()


async def runs(made: MemoryWorld) -> bool:
    """Whether a runner that asks, and asks again once the operator has heard of it, gets a run."""
    if await made.run_next() is not None:
        return True
    await answer_wanted(made)
    return await made.run_next() is not None


def condition(obj: dict[str, Any], type_: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in obj["status"]["conditions"] if item["type"] == type_)
    return found


def stored(made: MemoryWorld, kind: str, name: str) -> dict[str, Any]:
    return made.server.objects[kind, NAMESPACE, name]


async def violations(made: MemoryWorld) -> list[Recorded]:
    return await made.log.query(EventFilter(types=frozenset({"policy.violated"})), limit=10_000)


async def test_a_policy_that_compiles_is_ready() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    made.look()
    await made.settle()
    assert condition(stored(made, "Policy", "p"), "Ready")["status"] == "True"


async def test_a_broken_one_says_where() -> None:
    made = world()
    made.server.put("Policy", "p", denying("true && nothing"), "admin")
    made.look()
    await made.settle()
    ready = condition(stored(made, "Policy", "p"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PolicyInvalid")
    assert "spec.validations[0].expression: 1:9: undeclared reference to 'nothing'" in ready["message"]
    assert condition(stored(made, "Policy", "p"), "Stalled")["status"] == "True"


async def test_one_of_another_release_says_so_and_denies() -> None:
    made = world()
    made.server.put("Policy", "p", denying(colour="red"), "admin")
    await with_task(made)
    ready = condition(stored(made, "Policy", "p"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PolicyInvalid")
    assert "colour" in ready["message"]
    assert condition(stored(made, "Task", "t"), "Stalled")["reason"] == "PolicyDenied"


async def test_what_is_denied_at_launch_is_told_logged_and_summed_up() -> None:
    made = world()
    made.server.put("Policy", "p", denying(contact="ops@example.org"), "admin")
    await with_task(made)
    assert not await runs(made)
    stalled = condition(stored(made, "Task", "t"), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "PolicyDenied")
    assert "not today" in stalled["message"]
    assert "ops@example.org" in stalled["message"]
    (entry,) = await violations(made)
    assert entry.entry["subject"]["name"] == "p"
    assert entry.entry["data"]["objectUid"] == stored(made, "Task", "t")["metadata"]["uid"]
    made.clock.advance(2)
    made.pending.append(Key("Policy", NAMESPACE, "p"))  # as the consumer does
    await made.settle()
    status = stored(made, "Policy", "p")["status"]
    assert status["violationCount"] == 1
    assert [(each["name"], each["message"], each["seq"]) for each in status["violations"]] == [
        ("t", "not today", entry.seq)
    ]


async def test_it_heals_when_the_policy_is_changed() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    await with_task(made)
    made.server.edit("Policy", "p", validations=[{"expression": "true"}])
    made.look()
    await made.settle()
    assert await runs(made)


async def test_it_heals_when_the_policy_is_deleted() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    await with_task(made)
    gone = made.server.objects.pop(("Policy", NAMESPACE, "p"))
    made.index.remove(gone)
    await made._reconcilers.gone("Policy", gone)
    await made.settle()
    assert await runs(made)


@pytest.mark.parametrize("enforcement", ["Warn", "Audit"])
async def test_what_is_not_denied_runs_and_is_recorded(enforcement: str) -> None:
    made = world()
    made.server.put("Policy", "p", denying(enforcement=enforcement), "admin")
    await with_task(made)
    assert await runs(made)
    assert [each.entry["data"]["enforcement"] for each in await violations(made)] == [enforcement]
    warned = [event for event in made.server.events if event.reason == "PolicyWarning"]
    assert bool(warned) is (enforcement == "Warn")


async def test_looking_again_records_nothing_more() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    await with_task(made)
    before = [each.seq for each in await violations(made)]
    made.start()  # a new operator process, which remembers nothing
    await made.settle()
    assert [each.seq for each in await violations(made)] == before


async def test_the_status_shows_the_latest_and_counts_all() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    for number in range(25):
        made.server.put("Task", f"t-{number:02}", TASK, "alice")
    made.look()
    await made.settle()
    made.clock.advance(2)
    made.pending.append(Key("Policy", NAMESPACE, "p"))
    await made.settle()
    status = stored(made, "Policy", "p")["status"]
    total = len(await violations(made))
    assert status["violationCount"] == total >= 25
    assert len(status["violations"]) == 20
    assert [each["seq"] for each in status["violations"]] == sorted(
        (each["seq"] for each in status["violations"]), reverse=True
    )


async def test_many_violations_make_few_writes() -> None:
    made = world()
    made.server.put("Policy", "p", denying(), "admin")
    made.look()
    await made.settle()
    version = stored(made, "Policy", "p")["metadata"]["resourceVersion"]
    for _ in range(50):
        assert (await made.reconcile(Key("Policy", NAMESPACE, "p")) or 0) <= 1.0
    assert stored(made, "Policy", "p")["metadata"]["resourceVersion"] == version


async def test_a_change_voids_what_was_permitted_before_and_wakes_those_at_work_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = world()
    for number in range(3):
        made.server.put("Task", f"t-{number}", TASK, "alice")
    made.look()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    await made.sessions.start(claim.session_uid, claim.run, {})
    made.look()
    await made.settle()
    made.clock.advance(6)
    made.look()
    await made.settle()
    running = {
        task["metadata"]["name"]
        for task in made.server.of("Task")
        if (task.get("status") or {}).get("phase") == "Running"
    }
    assert len(running) == 1
    woken: list[tuple[str, float]] = []
    context = made._reconcilers._context
    monkeypatch.setattr(module, "WOKEN_PER_SECOND", 2)
    object.__setattr__(context, "enqueue", lambda key, delay: woken.append((key.name, delay)))
    made.server.put("Policy", "p", denying(), "admin")
    made.index.observe(stored(made, "Policy", "p"))
    await made.reconcile(Key("Policy", NAMESPACE, "p"))
    assert [delay for _, delay in woken] == [0.0, 0.5, 1.0, 1.5]
    assert woken[0][0] in running
    assert await made.sessions.claim("r", "i") is None, "their permits were given before"


async def test_what_is_at_work_and_now_denied_is_stopped_and_goes_on_when_it_may() -> None:
    made = world()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    await made.sessions.start(claim.session_uid, claim.run, {})
    made.look()
    await made.settle()
    made.server.put("Policy", "p", denying(), "admin")
    made.look()
    await made.settle()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert (view.revoked or "").startswith("PolicyDenied"), "its host hears of it with the next renewal"
    made.clock.advance(6)
    made.look()
    await made.settle()
    assert condition(stored(made, "Task", "t"), "Stalled")["reason"] == "PolicyDenied"
    made.server.edit("Policy", "p", enforcement="Audit")
    made.look()
    await made.settle()
    assert await runs(made)
