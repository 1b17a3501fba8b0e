"""Node: which step comes next, and what the Tasks of its steps amount to. Pure.

A Node first waits until it may begin: its Graph and Workflow are there, the steps can be run, nothing suspends it, and
it is its turn in the queue. Then its plan is settled, all its Tasks are made, and it only sums them up: each Task knows
by itself when it may start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from triplane.api.meta import TERMINAL, State
from triplane.api.node import FailureMode, QueueMode
from triplane.domain.node_plan import NodePlan, PlannedStep
from triplane.domain.node_status import NodeOutlook, blocked, cancelled, roll_up, suspended, waiting
from triplane.domain.node_steps import StepFacts
from triplane.domain.workflow import NAMED, Problem

BATCH = 32
"""Tasks made in one go before other keys get their turn."""
_UNDONE = frozenset({State.FAILED, State.TIMED_OUT, State.INVALIDATED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Aborted:
    """A recorded ``node.aborted``: FailFast with the step, or Replaced."""

    reason: str
    step: str | None = None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Everything the decision needs, gathered before it."""

    graph: str
    """Name of the Graph."""
    graph_there: bool
    """Whether it exists, as the incarnation under which the Node began."""
    plan: NodePlan | None
    """What was settled and logged."""
    proposed: NodePlan | tuple[Problem, ...] | None
    """What would be settled now; None when the Workflow is missing, or nothing need be settled."""
    workflow: str | None = None
    """Name of the Workflow."""
    suspended: str | None = None
    """What suspends it: ``spec.suspend`` or the Graph."""
    cancel: bool = False
    failure_mode: FailureMode = FailureMode.ISOLATE
    mode: QueueMode | None = None
    ahead: tuple[str, ...] = ()
    """Names of the unfinished Nodes before it in its queue, in their order."""
    ahead_running: tuple[str, ...] = ()
    """Those of ``ahead`` that nothing has cut short yet."""
    aborted: Aborted | None = None
    steps: Mapping[str, StepFacts] | None = None
    """Step to what its Task says; a step without one is absent."""
    taken: tuple[str, ...] = ()
    """Names of the plan's Tasks that stand and belong to something else."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Keep and log the plan."""

    plan: NodePlan


@dataclass(frozen=True, slots=True)
class Replace:
    """Cut these Nodes short."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """Cut this Node short because of a step."""

    step: str


@dataclass(frozen=True, slots=True)
class MakeTasks:
    """Make the Tasks of these steps; more may be left."""

    steps: tuple[PlannedStep, ...]


Action = Settle | Replace | Abort | MakeTasks


def decide(facts: NodeFacts) -> Action | NodeOutlook:
    """The next step of the Node, or how it stands when there is only waiting. Total, and idempotent over what is
    recorded."""
    return _begin(facts) if facts.plan is None else _carry_on(facts, facts.plan)


def _begin(facts: NodeFacts) -> Action | NodeOutlook:
    if facts.cancel:
        return cancelled("Cancelled", "It was cancelled before it began")
    if facts.aborted is not None:
        return cancelled(facts.aborted.reason, "A later Node of its queue took its place before it began")
    if not facts.graph_there:
        return waiting("GraphNotFound", f"Graph {facts.graph} does not exist; apply it")
    if facts.proposed is None:
        return waiting("WorkflowNotFound", f"Workflow {facts.workflow} does not exist; apply it")
    if isinstance(facts.proposed, tuple):
        return blocked(facts.proposed[0].reason, told(facts.proposed))
    if facts.suspended is not None:
        return suspended(f"{facts.suspended} suspends it; set it to false to begin")
    if facts.ahead and facts.mode is QueueMode.REPLACE and facts.ahead_running:
        return Replace(facts.ahead_running)
    if facts.ahead and facts.mode is not QueueMode.PARALLEL:
        # The last one alone: a list of all would change, and cost a write, each time one of them is over.
        message = f"It waits in its queue behind Node {facts.ahead[-1]}"
        return waiting("QueueTurn", message, state=State.QUEUED, refs=True)
    return Settle(facts.proposed)


def _carry_on(facts: NodeFacts, plan: NodePlan) -> Action | NodeOutlook:
    known = facts.steps or {}
    halted = cut_short(facts)
    if halted is None and facts.failure_mode is FailureMode.FAIL_FAST:
        failed = next((step.name for step in plan.steps if step.name in known and _failed(known[step.name])), None)
        if failed is not None and any(step.name not in known or _open(known[step.name]) for step in plan.steps):
            return Abort(failed)
    if facts.taken and halted is None:  # else it makes no Task any more, and whose those are is nobody's concern
        names = ", ".join(facts.taken[:NAMED])
        message = f"Task {names} exists and belongs to something else; delete it, or rename the step"
        return replace(blocked("TaskNameTaken", message), steps=rows(plan, known, halted))
    absent = [step for step in plan.steps if step.name not in known]
    if absent and halted is None:
        return MakeTasks(tuple(absent[:BATCH]))
    return roll_up(rows(plan, known, halted), halted=halted, suspended=facts.suspended)


def rows(
    plan: NodePlan, known: Mapping[str, StepFacts], halted: tuple[str, str] | None = None
) -> tuple[StepFacts, ...]:
    """Every step of the plan; one without a Task is still to come, or never will when the Node was ``halted``."""
    return tuple(known.get(step.name) or StepFacts.never(step.name, step.task, *(halted or ())) for step in plan.steps)


def without_plan(facts: NodeFacts, tasks: Sequence[StepFacts], why: str) -> Abort | NodeOutlook:
    """The same for a Node whose plan is lost (``why``), by those of its ``tasks`` that stand: it makes no further
    one, but can be cut short, so that it does not hold up its queue."""
    halted = cut_short(facts)
    if halted is None:
        failed = next((step.name for step in tasks if _failed(step)), None)
        if facts.failure_mode is FailureMode.FAIL_FAST and failed is not None:
            return Abort(failed)
        return blocked("PlanLost", f"{why}. Cancel or delete it, and make a new Node")
    if any(_open(step) for step in tasks):
        return blocked("PlanLost", f"{why}. {halted[1]}, and it ends with its Tasks")
    outlook = cancelled(halted[0], f"{halted[1]}. {why}")
    return replace(outlook, state=State.FAILED) if halted[0] == "FailFast" else outlook


def cut_short(facts: NodeFacts) -> tuple[str, str] | None:
    """``(reason, message)`` when no further Task is made."""
    if facts.cancel:
        return "Cancelled", "It was cancelled"
    if facts.aborted is not None:
        if facts.aborted.reason == "Replaced":
            return facts.aborted.reason, "A later Node of its queue took its place"
        return facts.aborted.reason, f"Step {facts.aborted.step} failed, and failureMode FailFast ends the others"
    if not facts.graph_there:
        return "GraphDeleted", f"Graph {facts.graph}, under which it began, was deleted"
    return None


def _failed(step: StepFacts) -> bool:
    return step.state in _UNDONE


def _open(step: StepFacts) -> bool:
    return step.state not in TERMINAL


def told(found: Sequence[Problem]) -> str:
    """Problems in one message."""
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return "; ".join(problem.message for problem in found[:NAMED]) + more
