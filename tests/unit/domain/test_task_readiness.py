"""Whether a Task may begin: dependencies, condition, inputs; suspending and cancelling; one sentence a row."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.domain.task_world import World, agent, task

from triplane.api.meta import InputType, State, Verdict, WaitingReason
from triplane.api.work import Merge
from triplane.domain.session import HeldBy, Outcome, RunState
from triplane.domain.task_facts import ComposeInputs, Launch, Place, SkipTask
from triplane.domain.task_needs import ComposedEdge, Composition, Dependency, InputFound, Standing

DIGEST = "sha256:" + "c" * 64


def needs(name: str, standing: Standing, reason: str = "") -> Dependency:
    return Dependency(name, name, standing, f"uid-{name}", reason)


COMPOSITION = Composition(
    "data", Merge.ARRAY, b"[1]", DIGEST, (ComposedEdge("uid-a", "a", "out", "sha256:" + "d" * 64),)
)
COMPOSED = InputFound("data", InputType.FILE, composition=COMPOSITION)
NOTHING = InputFound("data", InputType.FILE)
WANTING = InputFound("data", InputType.FILE, failed=("InputPathMissing", "output out of step a: /x leads nowhere"))
OPEN, DONE, SKIPPED = (needs("a", item) for item in (Standing.OPEN, Standing.COMPLETED, Standing.SKIPPED))
FAILED, MISSING = needs("f", Standing.FAILED, "HarnessFailed"), needs("m", Standing.MISSING)
GRAPH = (("GraphNotFound", "Graph g does not exist; apply it"),)
AGENT = (("AgentNotFound", "Agent w does not exist; apply it"),)


@pytest.mark.parametrize(
    ("facts", "state", "reason", "said"),
    [
        pytest.param(
            {"dependencies": (OPEN,)},
            State.AWAITING_DEPENDENCY,
            "AwaitingDependency",
            "this Task is",
            id="waits for one",
        ),
        pytest.param(
            {"dependencies": (OPEN, needs("b", Standing.OPEN))},
            State.AWAITING_DEPENDENCY,
            "AwaitingDependency",
            "these Tasks are accepted or skipped: a, b",
            id="waits for two",
        ),
        pytest.param(
            {"dependencies": tuple(needs(f"n{i}", Standing.OPEN) for i in range(10))},
            State.AWAITING_DEPENDENCY,
            "AwaitingDependency",
            "n7 and 2 more",
            id="waits for many",
        ),
        pytest.param(
            {"dependencies": (DONE, MISSING)},
            State.AWAITING_DEPENDENCY,
            "TaskNotFound",
            "Task m, which must come first, does not exist",
            id="waits for a Task that is not there",
        ),
        pytest.param(
            {"dependencies": (OPEN,), "missing": AGENT},
            State.AWAITING_DEPENDENCY,
            "AgentNotFound",
            "Agent w",
            id="an Agent is missing while it waits",
        ),
        pytest.param(
            {"dependencies": (OPEN, FAILED)},
            State.INVALIDATED,
            "DependencyFailed",
            "Task f ended without being accepted (HarnessFailed)",
            id="one failed while another is open",
        ),
        pytest.param(
            {"dependencies": (MISSING, FAILED)},
            State.INVALIDATED,
            "DependencyFailed",
            "Task f",
            id="one failed while another is not there",
        ),
        pytest.param(
            {"dependencies": (FAILED,), "missing": AGENT},
            State.INVALIDATED,
            "DependencyFailed",
            "Task f",
            id="one failed while an Agent is missing",
        ),
        pytest.param(
            {"dependencies": (FAILED,), "missing": GRAPH},
            State.AWAITING_DEPENDENCY,
            "GraphNotFound",
            "Graph g",
            id="nothing is decided before its Graph is there",
        ),
        pytest.param(
            {"dependencies": (OPEN,), "cycle": ("t", "a", "t")},
            State.BLOCKED,
            "DependencyCycle",
            "t → a → t",
            id="a cycle is spelled out",
        ),
        pytest.param(
            {"dependencies": (FAILED,), "cycle": ("t", "f", "t")},
            State.INVALIDATED,
            "DependencyFailed",
            "Task f",
            id="a cycle through a failed Task is over",
        ),
        pytest.param(
            {"dependencies": (DONE,), "condition": False},
            State.SKIPPED,
            "ConditionFalse",
            "false: x > 1",
            id="its condition is false",
        ),
        pytest.param(
            {"dependencies": (DONE,), "condition": False, "missing": AGENT},
            State.SKIPPED,
            "ConditionFalse",
            "false",
            id="its condition is false and its Agent missing",
        ),
        pytest.param(
            {"dependencies": (DONE,), "condition": "the condition `x` cannot be used: no such key"},
            State.FAILED,
            "ConditionFailed",
            "no such key",
            id="its condition cannot be evaluated",
        ),
        pytest.param(
            {"dependencies": (SKIPPED,), "found": (NOTHING,)},
            State.SKIPPED,
            "InputsSkipped",
            "input data",
            id="nothing was produced for an input",
        ),
        pytest.param(
            {"dependencies": (DONE,), "found": (NOTHING, WANTING)},
            State.FAILED,
            "InputPathMissing",
            "/x leads nowhere",
            id="a value is not in the output",
        ),
        pytest.param(
            {"dependencies": (DONE, SKIPPED)}, State.QUEUED, "Queued", "waits for a free runner", id="all are settled"
        ),
        pytest.param(
            {"dependencies": (DONE,), "condition": True},
            State.QUEUED,
            "Queued",
            "free runner",
            id="its condition is true",
        ),
        pytest.param(
            {"dependencies": (DONE,), "missing": AGENT},
            State.AWAITING_DEPENDENCY,
            "AgentNotFound",
            "Agent w",
            id="an Agent is missing",
        ),
        pytest.param(
            {"found": (replace(NOTHING, absent=True),), "missing": (("InputNotStored", "gone"),)},
            State.AWAITING_DEPENDENCY,
            "InputNotStored",
            "gone",
            id="a source is not in the store now",
        ),
    ],
)
def test_what_becomes_of_a_task_that_has_not_begun(facts: dict[str, Any], state: State, reason: str, said: str) -> None:
    world = World(task=task(when="x > 1"), **facts)
    plan = world.advance()
    assert (plan.outlook.state, plan.outlook.succeeded.reason) == (state, reason)
    assert said in plan.outlook.succeeded.message
    if state is not State.QUEUED:
        assert not [step for step in world.history if isinstance(step, Place | ComposeInputs)]


@pytest.mark.parametrize(
    ("facts", "waiting", "transient"),
    [
        pytest.param(
            {"dependencies": (OPEN,)}, WaitingReason.DEPENDENCY, True, id="waiting is written only if it lasts"
        ),
        pytest.param({"missing": AGENT}, WaitingReason.DEPENDENCY, False, id="a dangling reference is written at once"),
        pytest.param(
            {"cycle": ("t", "a", "t"), "dependencies": (OPEN,)},
            WaitingReason.HUMAN_INPUT,
            False,
            id="a cycle is for people",
        ),
        pytest.param({"condition": False}, WaitingReason.CONDITION_FALSE, False, id="a skipped step says why"),
        pytest.param({"suspended": ("Node n",)}, WaitingReason.HUMAN_INPUT, False, id="suspended is for people"),
        pytest.param({}, WaitingReason.QUEUED, True, id="a runner is what it waits for"),
    ],
)
def test_why_it_waits_is_one_word(facts: dict[str, Any], waiting: WaitingReason, transient: bool) -> None:
    outlook = World(**facts).advance().outlook
    assert (outlook.waiting, outlook.transient) == (waiting, transient)


def test_inputs_are_composed_before_anybody_is_placed() -> None:
    world = World(dependencies=(DONE,), found=(COMPOSED,))
    world.advance()
    assert isinstance(world.history[0], ComposeInputs)
    assert isinstance(world.history[1], Place)
    assert world.decisions.composed == {"data": DIGEST}


def test_a_skip_says_what_its_condition_saw() -> None:
    world = World(task=task(when="false"), dependencies=(DONE, needs("b", Standing.SKIPPED)), condition=False)
    world.advance()
    (skip,) = world.history
    assert isinstance(skip, SkipTask)
    assert skip.values == {"a": "completed", "b": "skipped"}


def test_once_placed_it_asks_after_no_dependency() -> None:
    world = World(dependencies=(DONE,))
    world.advance()
    world.dependencies, world.condition, world.cycle = (FAILED, MISSING), False, ("t", "m", "t")
    world.end_run("producer")
    assert world.advance().outlook.state is State.REVIEWING


def _to(world: World, stage: str) -> None:
    """Bring it to that stage."""
    if stage == "new":
        return
    world.advance()
    if stage in ("reviewing", "rejected"):
        world.end_run("producer")
        world.advance()
    if stage == "rejected":
        world.end_run("reviewer", verdict=Verdict.REJECT, findings=("no",))
    if stage == "retrying":
        world.end_run("producer", Outcome.FAILED)
    if stage == "running":
        _begin(world)


def _begin(world: World) -> None:
    for name, session in world.sessions.items():
        assert session.view is not None
        runs = tuple(replace(item, state=RunState.STARTED) for item in session.view.runs)
        world.sessions[name] = replace(session, view=replace(session.view, runs=runs))


STAGES = ["new", "queued", "running", "retrying", "reviewing", "rejected"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reason", ["Cancelled", "FailFast", "Replaced", "NodeDeleted"])
def test_cancelled_in_any_state_it_ends_cancelled(stage: str, reason: str) -> None:
    world = World(task=task(retry={"backoffSeconds": 60}))
    _to(world, stage)
    world.withdrawn = (reason, "on purpose")
    end = world.advance()
    assert (end.outlook.state, end.outlook.succeeded.reason) == (State.CANCELLED, reason)
    assert world.advance(limit=1).action is None


def test_cancelled_while_it_waits_it_ends_too() -> None:
    world = World(dependencies=(OPEN,), suspended=("Task t",), withdrawn=("Cancelled", "on purpose"))
    assert world.advance().outlook.state is State.CANCELLED


def test_accepted_before_it_was_cancelled_it_stays_accepted() -> None:
    world = World()
    _to(world, "reviewing")
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    world.advance()
    world.withdrawn = ("Cancelled", "too late")
    assert world.advance().outlook.state is State.COMPLETED


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("new", State.BLOCKED),
        ("queued", State.BLOCKED),
        ("retrying", State.BLOCKED),
        ("rejected", State.BLOCKED),
        ("running", State.RUNNING),
        ("reviewing", State.REVIEWING),
    ],
)
def test_suspended_nothing_is_launched_and_what_is_at_work_goes_on(stage: str, state: State) -> None:
    world = World(task=task(retry={"backoffSeconds": 60}))
    _to(world, stage)
    world.suspended = ("Graph g", "Task t")
    before = len([step for step in world.history if isinstance(step, Launch)])
    plan = world.advance()
    assert plan.outlook.state is state
    assert len([step for step in world.history if isinstance(step, Launch)]) == before
    (condition,) = [item for item in plan.outlook.findings() if item.type == "Suspended"]
    assert (condition.status, condition.reason) == ("True", "Suspended")
    assert "Graph g and Task t" in condition.message
    assert plan.outlook.stalled is None
    world.suspended = ()
    world.pass_(3600)
    lifted = world.advance()
    assert not [item for item in lifted.outlook.findings() if item.type == "Suspended"]
    assert lifted.outlook.state is not State.BLOCKED


def test_suspended_its_results_are_recorded_and_decided_all_the_same() -> None:
    world = World()
    _to(world, "reviewing")
    world.suspended = ("Node n",)
    world.end_run("reviewer", verdict=Verdict.APPROVE)
    assert world.advance().outlook.state is State.COMPLETED


def test_suspended_before_the_review_no_reviewer_is_placed() -> None:
    world = World(agents=(agent("writer", "write"), agent("judge", "review", principal="p-bob")))
    world.advance()
    world.suspended = ("Node n",)
    world.end_run("producer")
    plan = world.advance()
    assert plan.outlook.state is State.BLOCKED
    assert [step.placement.role for step in world.history if isinstance(step, Place)] == ["producer"]
    assert world.artifacts, "what was produced is recorded"


@pytest.mark.parametrize(
    ("held_by", "reason", "waiting"),
    [
        pytest.param(HeldBy.AGENT_LIMIT, "AgentAtLimit", WaitingReason.RATE_LIMIT, id="its Agent has enough at work"),
        pytest.param(HeldBy.GLOBAL_LIMIT, "Queued", WaitingReason.QUEUED, id="everybody has enough at work"),
        pytest.param(None, "Queued", WaitingReason.QUEUED, id="no runner is free"),
    ],
)
def test_what_keeps_a_run_from_starting_is_said(held_by: HeldBy | None, reason: str, waiting: WaitingReason) -> None:
    world = World()
    world.advance()
    for name, session in world.sessions.items():
        assert session.view is not None
        world.sessions[name] = replace(session, view=replace(session.view, held_by=held_by))
    outlook = world.advance().outlook
    assert (outlook.succeeded.reason, outlook.waiting) == (reason, waiting)


def test_a_session_that_nobody_asks_for_waits_without_a_permit() -> None:
    world = World(launchable=False)
    plan = world.advance()
    assert plan.outlook.succeeded.reason == "Queued"
    assert not [step for step in world.history if isinstance(step, Launch)]
    ((name, session),) = world.sessions.items()
    world.sessions[name] = replace(session, launchable=True)
    world.advance()
    assert [step.run for step in world.history if isinstance(step, Launch)] == [1]
