"""Task: which step comes next, decided from what is recorded.

A Task goes through *rounds*. In each, a producing session runs until it has outputs, an independent reviewer
judges exactly those, and the round is accepted or rejected; a rejection opens the next with its findings.
Everything that was decided stands in the log (``Decisions``); a decision is made once and only applied again.
"""

from collections.abc import Sequence
from dataclasses import replace

from triplane.api.meta import State
from triplane.domain.eligibility import Candidate, choose_producer
from triplane.domain.lens import bare_names
from triplane.domain.task_facts import (
    FailTask,
    Launch,
    LineUp,
    OpenSession,
    Place,
    Placement,
    Plan,
    RecordArtifacts,
    SessionFacts,
    TaskFacts,
)
from triplane.domain.task_gates import answer_calls, calling, launch, void_reviews
from triplane.domain.task_limits import limited, stop
from triplane.domain.task_outlook import blocked, finished, held, suspension, unresolved
from triplane.domain.task_readiness import unready
from triplane.domain.task_review import review
from triplane.domain.task_runs import act, drive, produced_by, session_of
from triplane.domain.workorder import ContractConflict


def decide(facts: TaskFacts) -> Plan:
    """The next step of the Task. Pure, total, and idempotent over what is recorded."""
    decisions = facts.decisions
    if decisions.over:
        plan = Plan(
            None, finished(decisions.accepted_round, decisions.accepted_review, decisions.failed, decisions.skipped)
        )
        return _noted(plan, void_reviews(facts))
    if (first := stop(facts) or answer_calls(facts)) is not None:
        return act(first)
    plan = limited(facts, _next(facts, len(decisions.rejected) + 1))
    if plan.action is None:
        plan = _noted(calling(facts, plan), void_reviews(facts))
    return _held_back(facts, plan) if facts.suspended else plan


def _noted(plan: Plan, void: Sequence[str]) -> Plan:
    """What people said that decides nothing, and why, stands where they look for the answer."""
    return replace(plan, outlook=plan.outlook.noting(void)) if void else plan


def _next(facts: TaskFacts, round_: int) -> Plan:
    decisions = facts.decisions
    if facts.withdrawn is not None:
        return act(FailTask(*facts.withdrawn, round_))
    if round_ > 1 and round_ - 1 > facts.task.spec.max_reworks:
        return act(_reworks_exhausted(facts, round_))
    if not decisions.placements and (first := unready(facts)) is not None:
        return first if isinstance(first, Plan) else act(first)
    if facts.missing:  # empty once a session is at work: it goes by its own work order
        return Plan(None, unresolved(facts.missing))
    if isinstance(facts.outputs, ContractConflict):
        return Plan(None, blocked("ContractConflict", facts.outputs.message))
    if facts.unmet is not None:
        return Plan(None, blocked(*facts.unmet))
    placement = decisions.latest("producer", round_)
    if placement is None:
        return _place_producer(facts, round_, 0)
    session = session_of(facts, placement)
    if session is None and facts.expected_session.get(placement.key) is None:
        return _place_producer(facts, round_, placement.ordinal + 1)
    if session is None or session.view is None:
        return act(OpenSession(placement))
    return _produce(facts, session, placement)


def _held_back(facts: TaskFacts, plan: Plan) -> Plan:
    """Nothing is launched while somebody suspends it; what is at work goes on, and is recorded and decided."""
    launching = isinstance(plan.action, Place | OpenSession | Launch | LineUp)
    idle = plan.action is None and plan.outlook.state in (State.QUEUED, State.RETRYING)
    if launching or (idle and plan.outlook.succeeded.reason != "Starting"):
        return Plan(None, held(facts.suspended))
    return replace(plan, outlook=replace(plan.outlook, suspended=suspension(facts.suspended)))


def _reworks_exhausted(facts: TaskFacts, round_: int) -> FailTask:
    findings = facts.decisions.rejected[round_ - 1]
    return FailTask(
        "ReworksExhausted",
        f"Rejected in round {round_ - 1}, and maxReworks {facts.task.spec.max_reworks} allows no further round; "
        f"findings: {'; '.join(findings)}"[:1024],
        round_ - 1,
    )


def _place_producer(facts: TaskFacts, round_: int, ordinal: int) -> Plan:
    spec = facts.task.spec
    named = spec.agent_ref.name if spec.agent_ref is not None else None
    earlier = facts.decisions.latest("producer", round_ - 1)
    same = [agent for agent in facts.agents if earlier is not None and agent.uid == earlier.agent_uid]
    required = bare_names(spec.required_capabilities)
    choice = choose_producer(same, named=named, required=required, task_uid=facts.task.metadata.uid)
    if choice.agent is None:
        choice = choose_producer(facts.agents, named=named, required=required, task_uid=facts.task.metadata.uid)
    if choice.agent is None:
        wanted = f"Agent {named}" if named else f"an Agent with capability {', '.join(required)}"
        why = "; ".join(choice.excluded) or "there is none in this namespace"
        return Plan(None, blocked("NoEligibleAgent", f"Waiting for {wanted}: {why}. Apply or mend one"))
    agent = choice.agent
    return act(
        Place(
            Placement(
                "producer",
                round_,
                ordinal,
                agent.uid,
                agent.name,
                agent.principal,
                agent.harness_principal,
                agent.model_family,
            )
        )
    )


def still_as_placed(placement: Placement, agents: Sequence[Candidate]) -> bool:
    """Whether the Agent may begin what it was placed for: there, active, and under the same users.

    A Harness is named, so another user can delete it and make one of that name: then another placement is due,
    for independence was judged on the old one.
    """
    return any(
        agent.active
        and agent.harness_found
        and (agent.principal, agent.harness_principal) == (placement.principal, placement.harness_principal)
        for agent in agents
        if agent.uid == placement.agent_uid
    )


def _produce(facts: TaskFacts, session: SessionFacts, placement: Placement) -> Plan:
    round_ = placement.round
    if (gate := launch(facts, session, placement)) is not None:
        return gate
    findings = facts.decisions.rejected.get(round_ - 1, ())
    driven = drive(facts, session, placement, findings)
    if isinstance(driven, Plan):
        return driven
    if isinstance(driven, FailTask):
        return act(driven)
    run = driven.succeeded
    assert run.result is not None
    if any((session.uid, run.run, output.name) not in facts.artifacts for output in run.result.outputs):
        return act(RecordArtifacts(session, run, round_))
    return review(facts, placement, produced_by(run))
