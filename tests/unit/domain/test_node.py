"""What a Node does next, and what it says of its steps."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from triplane.api.meta import TERMINAL, State
from triplane.api.node import FailureMode, NodeStatus, QueueMode
from triplane.domain.conditions import Finding
from triplane.domain.node import BATCH, Abort, Aborted, MakeTasks, NodeFacts, Replace, Settle, decide
from triplane.domain.node_plan import NodePlan, PlannedStep
from triplane.domain.node_status import NodeOutlook, roll_up
from triplane.domain.node_steps import StepFacts
from triplane.domain.workflow import Problem


def plan(*names: str) -> NodePlan:
    return NodePlan(tuple(PlannedStep(name, f"n-{name}", {}) for name in names))


def step(name: str, state: State, **fields: Any) -> StepFacts:
    return StepFacts(name, f"n-{name}", state, **{"reason": state.value.title().replace("_", ""), **fields})


def facts(**fields: Any) -> NodeFacts:
    base = NodeFacts(graph="g", graph_there=True, plan=None, proposed=plan("a", "b"))
    return replace(base, **fields)


def begun(*steps: StepFacts, names: str = "abc", **fields: Any) -> NodeFacts:
    return facts(plan=plan(*names), proposed=None, steps={item.name: item for item in steps}, **fields)


def told(outlook: object, type_: str = "Succeeded") -> Finding:
    assert isinstance(outlook, NodeOutlook)
    (found,) = (finding for finding in outlook.findings if finding.type == type_)
    return found


def types(outlook: object) -> list[str]:
    assert isinstance(outlook, NodeOutlook)
    return [finding.type for finding in outlook.findings]


@pytest.mark.parametrize(
    ("fields", "state", "reason", "waiting"),
    [
        pytest.param({"graph_there": False}, State.AWAITING_DEPENDENCY, "GraphNotFound", "dependency", id="no Graph"),
        pytest.param(
            {"proposed": None, "workflow": "w"}, State.AWAITING_DEPENDENCY, "WorkflowNotFound", "dependency",
            id="no Workflow",
        ),
        pytest.param(
            {"proposed": (Problem("DependencyCycle", "a → b → a"), Problem("UnknownStep", "c"))},
            State.BLOCKED, "DependencyCycle", "human_input", id="steps that cannot be run",
        ),
        pytest.param({"suspended": "spec.suspend"}, State.BLOCKED, "Suspended", "human_input", id="suspended"),
        pytest.param(
            {"ahead": ("x",), "ahead_running": ("x",), "mode": QueueMode.SERIAL}, State.QUEUED, "QueueTurn", "queued",
            id="another is before it",
        ),
        pytest.param(
            {"ahead": ("x",), "mode": QueueMode.REPLACE}, State.QUEUED, "QueueTurn", "queued",
            id="what it replaces is not over yet",
        ),
        pytest.param({"cancel": True}, State.CANCELLED, "Cancelled", None, id="cancelled before it began"),
        pytest.param({"aborted": Aborted("Replaced")}, State.CANCELLED, "Replaced", None, id="replaced before it"),
    ],
)  # fmt: skip
def test_it_waits_to_begin_and_says_for_what(
    fields: dict[str, Any], state: State, reason: str, waiting: str | None
) -> None:
    outlook = decide(facts(**fields))
    assert isinstance(outlook, NodeOutlook)
    assert (outlook.state, told(outlook).reason, outlook.waiting_reason) == (state, reason, waiting)
    assert told(outlook).status == ("False" if state in TERMINAL else "Unknown")
    stalled = reason == "DependencyCycle"
    assert told(outlook, "Stalled").status == ("True" if stalled else "False")
    assert ("Suspended" in types(outlook)) is (reason == "Suspended")
    refs = {"GraphNotFound", "WorkflowNotFound"}
    assert told(outlook, "ResolvedRefs").status == ("False" if reason in refs else "True")


def test_a_cycle_is_spelled_out_and_every_problem_is_told() -> None:
    problems = (Problem("DependencyCycle", "the steps wait for each other: a → b → a"), Problem("UnknownStep", "no c"))
    message = told(decide(facts(proposed=problems)), "Stalled").message
    assert message == "the steps wait for each other: a → b → a; no c"


def test_it_begins_when_it_may_and_replaces_who_is_before_it() -> None:
    assert decide(facts()) == Settle(plan("a", "b"))
    assert decide(facts(ahead=("x",), ahead_running=("x",), mode=QueueMode.PARALLEL)) == Settle(plan("a", "b"))
    assert decide(facts(ahead=("x", "y"), ahead_running=("y",), mode=QueueMode.REPLACE)) == Replace(("y",))


def test_tasks_are_made_in_batches_and_only_those_that_are_not_there() -> None:
    names = [f"s{n}" for n in range(BATCH + 5)]
    made = decide(replace(begun(), plan=plan(*names)))
    assert isinstance(made, MakeTasks)
    assert [item.name for item in made.steps] == names[:BATCH]
    known = {name: step(name, State.RUNNING) for name in names[:BATCH]}
    rest = decide(replace(begun(), plan=plan(*names), steps=known))
    assert isinstance(rest, MakeTasks)
    assert [item.name for item in rest.steps] == names[BATCH:]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"cancel": True}, id="cancelled"),
        pytest.param({"aborted": Aborted("Replaced")}, id="replaced"),
        pytest.param({"graph_there": False}, id="its Graph is gone"),
    ],
)
def test_when_it_is_cut_short_no_further_task_is_made_and_the_missing_count_as_cancelled(
    fields: dict[str, Any],
) -> None:
    still = decide(begun(step("a", State.RUNNING), **fields))
    assert isinstance(still, NodeOutlook)
    assert still.state is State.RUNNING
    over = decide(begun(step("a", State.CANCELLED), **fields))
    assert isinstance(over, NodeOutlook)
    assert (over.state, told(over).status) == (State.CANCELLED, "False")
    assert told(over).reason in ("Cancelled", "Replaced", "GraphDeleted")
    assert [row["state"] for row in over.fields()["steps"]] == ["cancelled"] * 3


FAILING = [State.FAILED, State.TIMED_OUT, State.INVALIDATED, State.CANCELLED]


@pytest.mark.parametrize("state", FAILING)
def test_fail_fast_cuts_the_others_short_and_isolate_does_not(state: State) -> None:
    steps = (step("a", State.RUNNING), step("b", state), step("c", State.QUEUED))
    fast = begun(*steps, failure_mode=FailureMode.FAIL_FAST)
    assert decide(fast) == Abort("b")
    assert decide(replace(fast, steps={"b": steps[1]})) == Abort("b")  # before the others are even made
    assert isinstance(decide(begun(*steps)), NodeOutlook)
    assert isinstance(decide(replace(fast, aborted=Aborted("FailFast", "b"))), NodeOutlook)
    assert isinstance(decide(replace(fast, cancel=True)), NodeOutlook)
    done = begun(step("a", State.COMPLETED), step("b", state), step("c", State.SKIPPED))
    assert isinstance(decide(replace(done, failure_mode=FailureMode.FAIL_FAST)), NodeOutlook)  # nothing left to stop


def test_a_task_of_a_stranger_in_the_way_stalls_the_node_until_it_goes() -> None:
    outlook = decide(begun(step("a", State.RUNNING), taken=("n-b",)))
    assert told(outlook, "Stalled").reason == "TaskNameTaken"
    assert "n-b" in told(outlook).message
    assert isinstance(outlook, NodeOutlook)
    assert [row["task"] for row in outlook.fields()["steps"]] == ["n-a", "n-b", "n-c"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"cancel": True}, id="cancelled"),
        pytest.param({"aborted": Aborted("Replaced")}, id="replaced"),
        pytest.param({"graph_there": False}, id="its Graph is gone"),
    ],
)
def test_a_task_of_a_stranger_in_the_way_does_not_keep_the_node_from_ending(fields: dict[str, Any]) -> None:
    outlook = decide(begun(step("a", State.CANCELLED), taken=("n-b",), **fields))
    assert isinstance(outlook, NodeOutlook)
    assert (outlook.state, told(outlook).status) == (State.CANCELLED, "False")


def test_a_task_of_a_stranger_in_the_way_does_not_keep_a_failure_from_ending_the_others() -> None:
    facts = begun(step("a", State.FAILED), step("c", State.RUNNING), taken=("n-b",))
    assert decide(replace(facts, failure_mode=FailureMode.FAIL_FAST)) == Abort("a")


S = State


@pytest.mark.parametrize(
    ("states", "expected", "status", "reason"),
    [
        ([S.COMPLETED, S.COMPLETED], S.COMPLETED, "True", "Accepted"),
        ([S.COMPLETED, S.SKIPPED], S.COMPLETED, "True", "Accepted"),
        ([S.SKIPPED, S.SKIPPED], S.SKIPPED, "True", "Skipped"),
        ([S.COMPLETED, S.FAILED, S.INVALIDATED], S.FAILED, "False", "Failed"),
        ([S.FAILED, S.TIMED_OUT], S.FAILED, "False", "StepsFailed"),
        ([S.TIMED_OUT, S.INVALIDATED], S.TIMED_OUT, "False", "TimedOut"),
        ([S.INVALIDATED, S.COMPLETED], S.FAILED, "False", "Invalidated"),
        ([S.COMPLETED, S.CANCELLED, S.INVALIDATED], S.CANCELLED, "False", "Cancelled"),
        ([S.FAILED, S.CANCELLED], S.FAILED, "False", "Failed"),
        ([S.PENDING], S.PENDING, "Unknown", "Pending"),
        ([S.PENDING, S.AWAITING_DEPENDENCY], S.PENDING, "Unknown", "Pending"),
        ([S.RUNNING, S.REVIEWING, S.QUEUED], S.RUNNING, "Unknown", "Running"),
        ([S.REVIEWING, S.AWAITING_DEPENDENCY], S.REVIEWING, "Unknown", "Reviewing"),
        ([S.COMPLETED, S.QUEUED, S.AWAITING_DEPENDENCY], S.RUNNING, "Unknown", "Running"),
        ([S.COMPLETED, S.AWAITING_DEPENDENCY], S.RUNNING, "Unknown", "Running"),
        ([S.RETRYING, S.QUEUED], S.RETRYING, "Unknown", "Retrying"),
        ([S.COMPLETED, S.BLOCKED, S.AWAITING_DEPENDENCY], S.BLOCKED, "Unknown", "Blocked"),
        ([S.BLOCKED, S.RUNNING], S.RUNNING, "Unknown", "Running"),
    ],
)
def test_the_steps_add_up(states: list[State], expected: State, status: str, reason: str) -> None:
    outlook = roll_up([step(f"s{n}", state) for n, state in enumerate(states)])
    assert (outlook.state, told(outlook).status, told(outlook).reason) == (expected, status, reason)
    assert told(outlook, "Reconciling").status == ("False" if status != "Unknown" else "True")
    over = sum(state in TERMINAL for state in states)
    assert outlook.fields()["progress"] == f"{over}/{len(states)}"


def test_fail_fast_is_a_failure_that_names_the_step() -> None:
    steps = [step("a", S.CANCELLED, reason="FailFast"), step("b", S.FAILED, reason="HarnessFailed", message="exit 3")]
    outlook = roll_up(steps, halted=("FailFast", "Step b failed, and failureMode FailFast ends the others"))
    assert (outlook.state, told(outlook).reason) == (S.FAILED, "FailFast")
    assert (
        told(outlook).message == "Step b (HarnessFailed) failed: exit 3; 0 of 2 steps completed, 1 failed, 1 cancelled"
    )


def test_only_the_first_failed_steps_are_named() -> None:
    outlook = roll_up([step(f"s{n}", S.FAILED, reason="HarnessFailed", message="x" * 2000) for n in range(256)])
    message = told(outlook).message
    assert message.startswith("Step s0 (HarnessFailed), s1 (HarnessFailed)")
    assert "and 251 more failed" in message
    assert len(message) <= 1024


def test_a_stalled_step_stalls_the_node_only_when_nothing_else_moves() -> None:
    stalled = step("a", S.BLOCKED, stalled=True, reason="NoEligibleAgent", message="apply one")
    held = step("b", S.BLOCKED, reason="Suspended")
    alone = roll_up([held, stalled])
    assert (told(alone, "Stalled").status, told(alone, "Stalled").reason) == ("True", "NoEligibleAgent")
    assert told(alone, "Stalled").message == "Step a (Task n-a): apply one"
    assert told(roll_up([stalled, step("c", S.RUNNING)]), "Stalled").status == "False"
    assert told(roll_up([held]), "Stalled").status == "False"


def test_what_suspends_it_shows_while_it_is_under_way_and_not_when_it_is_over() -> None:
    assert told(roll_up([step("a", S.RUNNING)], suspended="spec.suspend of the Node"), "Suspended").status == "True"
    assert "Suspended" not in types(roll_up([step("a", S.COMPLETED)], suspended="spec.suspend of the Node"))


def test_a_message_of_a_task_changes_nothing_about_its_node() -> None:
    one, other = (roll_up([step("a", S.RUNNING, message=text), step("b", S.QUEUED)]) for text in ("this", "that"))
    assert (one.findings, one.fields()) == (other.findings, other.fields())


def test_times_tokens_and_cost_add_up() -> None:
    steps = [
        step("a", S.COMPLETED, started_at="2026-01-01T00:00:05Z", completed_at="2026-01-01T00:01:00Z", tokens=3),
        step("b", S.COMPLETED, started_at="2026-01-01T00:00:00Z", completed_at="2026-01-01T00:00:30Z", tokens=4,
             cost_minor_units=7),
    ]  # fmt: skip
    fields = roll_up(steps).fields()
    assert (fields["startedAt"], fields["completedAt"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z")
    assert (fields["durationSeconds"], fields["tokens"], fields["costMinorUnits"]) == (60, 7, 7)
    going = roll_up([*steps, step("c", S.RUNNING)]).fields()
    assert (going["completedAt"], going["durationSeconds"]) == (None, 0)
    assert going["active"] == ["c"]


def test_the_status_of_the_largest_node_fits() -> None:
    rows = [
        StepFacts(
            "s" * 60 + f"{n:03}", "t" * 60 + f"{n:03}", S.TIMED_OUT, "SomeVeryLongReasonThatIsStillAWord" * 2, "m" * 99,
            retries=10, duration_seconds=86400, tokens=10**9, cost_minor_units=10**9,
            started_at="2026-01-01T00:00:00Z", completed_at="2026-01-01T00:00:30Z",
        )
        for n in range(256)
    ]  # fmt: skip
    waiting = [replace(row, state=S.RETRYING, waiting_reason="external_callback") for row in rows]
    for steps in (rows, waiting):
        outlook = roll_up(steps)
        conditions = [vars_of(finding) for finding in outlook.findings]
        fields = {key: value for key, value in outlook.fields().items() if value}
        status = {**fields, "conditions": conditions}
        assert len(orjson.dumps(status)) < 64 * 1024
        assert len(NodeStatus.model_validate(status).steps) == 256


def vars_of(finding: Finding) -> dict[str, str]:
    return {
        "type": finding.type, "status": finding.status, "reason": finding.reason, "message": finding.message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
