"""A Task under authority, budgets and Policies: what is frozen, what bars a launch, what ends a run, how it heals."""

from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_crashes import TASK, WORKER

from triplane.api.authority import Grant
from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.domain.authority import BUILT_IN, digest_of
from triplane.domain.session import Claim, Outcome, RunResult, RunState, Usage

OPEN = {"mayUse": {"egress": ["*.example"], "secrets": ["key"]}}


def world(graph: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **agent: Any) -> MemoryWorld:
    made = MemoryWorld()
    made.server.put("Graph", "g", graph or {}, "alice")
    for user, name, capability in (("alice", "writer", "write"), ("bob", "judge", "review")):
        made.server.put("Harness", name, WORKER, user)
        made.server.put(
            "Agent", name, {"harnessRef": {"name": name}, "capabilities": [capability], **(agent or {})}, user
        )
    made.server.put("Task", "t", {**TASK, **(task or {})}, "alice")
    made.look()
    return made


def status(made: MemoryWorld) -> dict[str, Any]:
    found: dict[str, Any] = made.server.objects["Task", NAMESPACE, "t"]["status"]
    return found


def stalled(made: MemoryWorld) -> tuple[str, str] | None:
    """Reason and message of ``Stalled``."""
    for condition in status(made)["conditions"]:
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return condition["reason"], condition["message"]
    return None


async def healed(made: MemoryWorld) -> bool:
    """Whether nothing stalls it once what may pass in a moment has passed."""
    made.clock.advance(8.0)
    await made.settle_task()
    return stalled(made) is None


async def running(made: MemoryWorld) -> Claim:
    """Until the producer is at work."""
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    if claim is None:  # its permit was taken back; now it is asked for
        await made.settle_task()
        claim = await made.sessions.claim("r", "i")
    assert claim is not None
    await made.sessions.start(claim.session_uid, claim.run, {})
    made.look()
    await made.settle()
    return claim


async def entries(made: MemoryWorld, kind: str) -> list[dict[str, Any]]:
    found = await made.log.query(EventFilter(types=frozenset({kind})), limit=1000)
    return [dict(item.entry["data"]) for item in found]


async def test_what_a_session_may_use_is_frozen_in_its_spec_its_work_order_and_the_permit() -> None:
    made = world({"authority": OPEN}, authority=OPEN)
    claim = await running(made)
    (session,) = made.server.of("AgentSession")
    granted = session["spec"]["authority"]
    assert granted["egress"] == ["*.example"]
    assert granted["tools"] == ["**"]
    assert claim.work_order["authority"] == granted
    assert claim.work_order["demandedAxes"] == ["egress", "secrets"]
    digest = digest_of(Grant.model_validate(granted))
    assert session["spec"]["authorityDigest"] == digest
    assert [entry["authorityDigest"] for entry in await entries(made, "run.permitted")] == [digest]
    assert {"role": "authority", "name": "effective", "digest": digest, "basis": "content"} in session["spec"][
        "snapshot"
    ]


async def test_without_any_authority_a_session_has_the_installations() -> None:
    claim = await running(world())
    assert claim.work_order["authority"]["egress"] == []
    assert claim.work_order["authority"]["models"] == BUILT_IN.may_use.models
    assert claim.work_order["demandedAxes"] == []
    assert "budget" not in claim.run_inputs


async def test_an_agent_uses_no_more_than_both_sides_grant() -> None:
    made = world({"authority": OPEN}, authority={"mayUse": {"egress": ["a.example", "b.other"]}})
    claim = await running(made)
    assert claim.work_order["authority"]["egress"] == ["a.example"]


@pytest.mark.parametrize(
    ("task", "axis", "mends"),
    [
        pytest.param(
            {"secrets": [{"name": "key", "key": "k", "env": "KEY"}]}, "secrets key", OPEN, id="a Secret nobody grants"
        ),
        pytest.param(
            {"paths": [{"path": "data", "writable": True}]},
            "paths data:rw",
            {"mayUse": {"paths": ["data:rw"]}},
            id="a path nobody grants",
        ),
        pytest.param({"model": "big"}, "models big", {"mayUse": {"models": ["b*"]}}, id="a model nobody grants"),
    ],
)
async def test_a_need_that_is_not_granted_stalls_the_task_until_it_is(
    task: dict[str, Any], axis: str, mends: dict[str, Any]
) -> None:
    made = world({"authority": {"mayUse": {"models": []}}}, task, authority=mends)
    await made.settle()
    reason, message = stalled(made) or ("", "")
    assert reason == "AuthorityExceeded"
    assert axis in message
    assert "alice" in message
    assert await made.sessions.claim("r", "i") is None
    made.server.edit("Graph", "g", authority=mends)
    made.look()
    await made.settle()
    assert await healed(made)
    assert await made.sessions.claim("r", "i") is not None


async def test_narrowing_a_graph_ends_what_runs_under_more_and_the_task_goes_on_under_less() -> None:
    made = world({"authority": OPEN}, authority=OPEN)
    first = await running(made)
    made.server.edit("Graph", "g", authority={"mayUse": {"egress": []}, "mayDelegate": {"egress": []}})
    made.look()
    await made.settle()
    view = await made.sessions.get(first.session_uid)
    assert view is not None
    assert view.revoked is not None
    assert view.revoked.startswith("AuthorityNarrowed: ")
    assert "egress" in view.revoked
    assert [entry["reason"] for entry in await entries(made, "session.stopped")] == ["AuthorityNarrowed"]
    second = await made.run_next()
    assert second is not None
    assert second.session_uid != first.session_uid
    assert second.work_order["authority"]["egress"] == []
    for _ in range(4):
        await made.settle()
        await made.run_next()
    assert status(made)["state"] == "completed"
    assert status(made)["retries"] == 0, "it was no second try"
    assert await entries(made, "task.failed") == []


async def test_narrowing_and_widening_again_makes_a_third_session() -> None:
    made = world({"authority": OPEN}, authority=OPEN)
    sessions = {(await running(made)).session_uid}
    for egress in ([], ["*.example"]):
        made.server.edit("Graph", "g", authority={"mayUse": {"egress": egress}})
        made.look()
        await made.settle()
        if egress == []:
            claim = await made.sessions.claim("r", "i")
            assert claim is not None
            sessions.add(claim.session_uid)
            made.server.edit("Agent", "writer", authority={"mayUse": {"tools": []}})
            made.look()
            await made.settle()
            made.server.edit("Agent", "writer", authority=OPEN)
            made.look()
            await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.session_uid not in sessions
    assert claim.work_order["authority"]["egress"] == ["*.example"]


async def test_a_widened_graph_disturbs_nothing() -> None:
    made = world({"authority": OPEN}, authority=OPEN)
    claim = await running(made)
    made.server.edit("Graph", "g", authority={"mayUse": {"egress": ["*"], "secrets": ["key", "other"]}})
    made.look()
    await made.settle()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert view.revoked is None


async def test_a_permit_that_nobody_claimed_is_void_when_the_graph_changes() -> None:
    made = world({"authority": OPEN}, authority=OPEN)
    await made.settle()
    made.server.edit("Graph", "g", authority={"mayUse": {"egress": []}, "mayDelegate": {"egress": []}})
    made.look()
    await made.settle()
    claim = await made.sessions.claim("r", "i")
    assert claim is not None
    assert claim.work_order["authority"]["egress"] == []


async def test_authority_ends_with_its_time() -> None:
    until = MemoryWorld().clock.now().replace(microsecond=0)
    text = until.replace(year=until.year + 1).isoformat().replace("+00:00", "Z")
    made = world({"authority": {"mayUse": {"expiresAt": text}}})
    claim = await running(made)
    made.clock.advance(366 * 86400.0)
    await made.settle_task()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert (view.revoked or "").startswith("AuthorityExpired: ")
    reason, message = stalled(made) or ("", "")
    assert reason == "AuthorityExpired"
    assert "alice, in spec.authority of Graph g," in message
    made.server.edit("Graph", "g", authority={})
    made.look()
    await made.settle()
    assert await healed(made)


async def test_a_run_is_given_what_is_left_of_every_budget_above_it() -> None:
    made = world(
        {"authority": {"mayUse": {"budget": {"tokens": 100}}}}, authority={"mayUse": {"budget": {"tokens": 60}}}
    )
    claim = await running(made)
    assert claim.run_inputs["budget"] == {"tokens": 60}
    result = RunResult(Outcome.FAILED, "ExitNonZero", "", usage=Usage(30, 15))
    await made.sessions.finish(claim.session_uid, claim.run, result)
    made.clock.advance(60.0)
    await made.settle_task()
    second = await made.sessions.claim("r", "i")
    assert second is not None
    assert second.run_inputs["budget"] == {"tokens": 15}


async def test_a_spent_budget_stalls_the_task_without_failing_it_and_heals_when_it_is_raised() -> None:
    made = world({"authority": {"mayUse": {"budget": {"tokens": 100}}}}, {"maxRetries": 0})
    claim = await running(made)
    result = RunResult(Outcome.FAILED, "BudgetExceeded", "", usage=Usage(80, 20))
    await made.sessions.finish(claim.session_uid, claim.run, result)
    made.clock.advance(60.0)
    await made.settle_task()
    reason, message = stalled(made) or ("", "")
    assert reason == "BudgetExceeded"
    assert "budget.tokens 100 spent is beyond 100: Graph g has nothing left; alice can raise" in message
    made.server.edit("Graph", "g", authority={"mayUse": {"budget": {"tokens": 150}}})
    made.look()
    await made.settle()
    again = await made.sessions.claim("r", "i")
    assert again is not None
    assert again.run_inputs["budget"] == {"tokens": 50}
    assert await entries(made, "task.failed") == []


async def test_what_runs_together_may_not_spend_more_than_there_is() -> None:
    """Each host knows its own run; the sum is the operator's to watch."""
    made = world({"authority": {"mayUse": {"budget": {"tokens": 100}}}})
    made.server.put("Task", "other", TASK, "alice")
    made.look()
    first = await running(made)
    second = await running(made)
    assert first.run_inputs["budget"] == second.run_inputs["budget"] == {"tokens": 100}
    for claim in (first, second):
        await made.sessions.report(claim.session_uid, claim.run, Usage(60, 0))
    made.look()
    await made.settle()
    for claim in (first, second):
        view = await made.sessions.get(claim.session_uid)
        assert view is not None
        assert (view.revoked or "").startswith("BudgetExceeded: ")


async def test_a_session_more_than_there_may_be_is_not_made() -> None:
    made = world({"authority": {"mayUse": {"budget": {"sessions": 1}}}})
    await running(made)
    made.server.put("Task", "other", TASK, "alice")
    made.look()
    await made.settle()
    found = made.server.objects["Task", NAMESPACE, "other"]["status"]["conditions"]
    assert any(item["type"] == "Stalled" and item["reason"] == "BudgetExceeded" for item in found)
    assert len(made.server.of("AgentSession")) == 1


async def test_nothing_is_launched_beneath_what_may_have_nothing_beneath_it() -> None:
    made = world({"authority": {"mayDelegate": {"delegationDepth": 0}}})
    await made.settle()
    reason, message = stalled(made) or ("", "")
    assert reason == "AuthorityExceeded"
    assert "delegationDepth one more level is beyond 0 (mayDelegate of Graph g); alice can change that" in message


def policy(expression: str, **spec: Any) -> dict[str, Any]:
    return {
        "match": {"kinds": ["Task"]},
        "stages": ["Launch"],
        "validations": [{"expression": expression, "message": "no"}],
        "contact": "the board",
        **spec,
    }


async def test_a_policy_bars_a_launch_is_named_and_heals() -> None:
    made = world()
    made.server.put("Policy", "p", policy("agent.metadata.name != 'writer'"), "root")
    made.look()
    await made.settle()
    reason, message = stalled(made) or ("", "")
    assert reason == "PolicyDenied"
    assert "Policy team/p (validations[0], PolicyDenied) denies it: no (the board can change that)" in message
    assert len(await entries(made, "policy.violated")) == 1
    assert await entries(made, "run.permitted") == []
    made.server.edit("Policy", "p", **policy("true"))
    made.look()
    await made.settle()
    assert await healed(made)
    (permitted,) = await entries(made, "run.permitted")
    ((_, name, _, generation, _),) = await made.document(permitted["policyDigest"])
    assert (name, generation) == ("p", 2)


async def test_a_policy_that_came_after_the_last_look_denies_the_permit_all_the_same() -> None:
    """The index knows nothing of it; the API server does."""
    made = world()
    made.server.put("Policy", "p", policy("false"), "root")
    await made.settle()
    assert await entries(made, "run.permitted") == []
    assert stalled(made) is not None


async def test_a_new_policy_ends_what_runs_against_it() -> None:
    made = world()
    claim = await running(made)
    made.server.put("Policy", "p", policy("false"), "root")
    made.look()
    await made.settle()
    view = await made.sessions.get(claim.session_uid)
    assert view is not None
    assert view.runs[-1].state is RunState.REVOKED
    assert (view.revoked or "").startswith("PolicyDenied: ")
    assert (stalled(made) or ("",))[0] == "PolicyDenied"


async def test_a_policy_that_warns_tells_and_lets_it_go_on() -> None:
    made = world()
    made.server.put("Policy", "p", policy("false", enforcement="Warn"), "root")
    made.look()
    await running(made)
    assert len({event.key for event in made.server.events if event.reason == "PolicyWarning"}) == 1


async def test_the_more_spend_the_less_often_each_is_added_up() -> None:
    made = world({"authority": {"mayUse": {"budget": {"tokens": 1000}}}})
    await running(made)
    key = Key("Task", NAMESPACE, "t")
    assert await made.reconcile(key) == pytest.approx(5.0)
    reader = made._reconcilers._by_kind["Task"].__self__._gatherer._limits  # type: ignore[attr-defined]
    others = {f"uid-of-{number}": made.clock.monotonic() for number in range(999)}
    reader._spending = others
    assert await made.reconcile(key) == pytest.approx(50.0)
    made.clock.advance(200.0)  # the others have ended
    await made.reconcile(key)
    assert await made.reconcile(key) == pytest.approx(5.0)
