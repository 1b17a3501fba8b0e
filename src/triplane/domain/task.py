"""Task: which step comes next, decided from what is recorded.

A Task goes through *rounds*. In each, a producing session runs until it has outputs, an independent reviewer
judges exactly those, and the round is accepted or rejected; a rejection opens the next with its findings.
Everything that was decided stands in the log (``Decisions``); a decision is made once and only applied again.
"""

from collections.abc import Sequence
from dataclasses import replace

from triplane.api.meta import State, Subject
from triplane.api.task import Task
from triplane.domain.eligibility import Candidate, Producer, choose_producer, choose_reviewer
from triplane.domain.session import LIVE_RUN_STATES, RunState, RunView
from triplane.domain.task_facts import (
    DecideByPerson,
    FailTask,
    Launch,
    LineUp,
    OpenSession,
    Place,
    Placement,
    Plan,
    RecordAgentReview,
    RecordArtifacts,
    SessionFacts,
    TaskFacts,
)
from triplane.domain.task_outlook import blocked, finished, held, in_review, suspension, unresolved
from triplane.domain.task_readiness import unready
from triplane.domain.task_runs import Settled, act, drive, succeeded
from triplane.domain.verdict import VerdictFile, VerdictVoid, void_person_review
from triplane.domain.workorder import ContractConflict

DEFAULT_REVIEW_CAPABILITY = "review"


def decide(facts: TaskFacts) -> Plan:
    """The next step of the Task. Pure, total, and idempotent over what is recorded."""
    decisions = facts.decisions
    if decisions.over:
        return Plan(
            None, finished(decisions.accepted_round, decisions.accepted_review, decisions.failed, decisions.skipped)
        )
    plan = _next(facts, len(decisions.rejected) + 1)
    return _held_back(facts, plan) if facts.suspended else plan


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
    required = spec.required_capabilities or ()
    choice = choose_producer(same, named=named, required=required, task_uid=facts.task.metadata.uid)
    if choice.agent is None:
        choice = choose_producer(facts.agents, named=named, required=required, task_uid=facts.task.metadata.uid)
    if choice.agent is None:
        wanted = f"Agent {named}" if named else f"an Agent with capability {', '.join(required)}"
        why = "; ".join(choice.excluded) or "there is none in this namespace"
        return Plan(None, blocked("NoEligibleAgent", f"Waiting for {wanted}: {why}. Apply or mend one"))
    agent = choice.agent
    return act(Place(_placement("producer", round_, ordinal, agent)))


def _placement(role: str, round_: int, ordinal: int, agent: Candidate) -> Placement:
    return Placement(role, round_, ordinal, agent.uid, agent.name, agent.principal, agent.harness_principal)


def session_of(facts: TaskFacts, placement: Placement) -> SessionFacts | None:
    """The session that serves a placement: the one in force in this round, else the one whose frozen
    snapshot equals what would be frozen now. An edit mid-run disturbs no run; it opens the next one anew."""
    if (session := in_force(facts.sessions, placement)) is not None:
        return session
    expected = facts.expected_session.get(placement.key)
    return next((session for session in facts.sessions if session.name == expected), None)


def in_force(sessions: Sequence[SessionFacts], placement: Placement) -> SessionFacts | None:
    """The session of a placement that has done the round's work, else the one at work on it.

    A permit that a runner may still take counts as work: a second one beside it would have it done twice.
    """
    at_work = None
    for session in sessions:
        if (session.role, session.agent_uid) != (placement.role, placement.agent_uid) or session.view is None:
            continue
        runs = [run for run in session.view.runs if run.run_inputs.get("round") == placement.round]
        if any(map(succeeded, runs)) and not isinstance(session.verdict, VerdictVoid):
            return session
        if at_work is None and any(map(_claimable_or_live, runs)):
            at_work = session
    return at_work


def _claimable_or_live(run: RunView) -> bool:
    return run.state in LIVE_RUN_STATES or (run.state is RunState.PERMITTED and not run.permit_expired)


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
    produced = tuple(Subject(name=output.name, digest=output.digest) for output in run.result.outputs)
    review = facts.task.spec.review
    if review is not None and review.people:
        return _await_person(facts, review.people, produced, placement)
    return _review(facts, placement)


def _await_person(facts: TaskFacts, people: Sequence[str], produced: Sequence[Subject], producer: Placement) -> Plan:
    round_ = producer.round
    if None in (producer.principal, producer.harness_principal):
        return Plan(
            None,
            blocked(
                "NoIndependentReviewer",
                f"Nobody can review round {round_}: the producing Agent or its Harness has no recorded controlling "
                "user. Make both anew, and a new Task",
            ),
        )
    own = next((agent.users for agent in facts.agents if agent.uid == producer.agent_uid), frozenset())
    if not set(people) - own:
        return Plan(
            None,
            blocked(
                "NoIndependentReviewer",
                f"Everybody in review.people ({', '.join(people)}) controls the producing Agent or its Harness; "
                "name somebody else there",
            ),
        )
    void = []
    for review in facts.people_reviews:
        reason = void_person_review(
            review,
            round_=round_,
            produced=produced,
            people=people,
            producer_principals=(producer.principal, producer.harness_principal),
        )
        if reason is None:
            return act(DecideByPerson(review, round_))
        if review.round == round_:
            void.append(reason)
    asked = f"Waiting for a Review of round {round_} by {' or '.join(people)}"
    return Plan(None, in_review("WaitingForPerson", ". ".join([asked, *void]), reviewer=", ".join(people)))


def _review(facts: TaskFacts, producer: Placement) -> Plan:
    """Only the latest reviewer counts: one that was given up stays so, even if its Agent comes back."""
    round_ = producer.round
    placement = facts.decisions.latest("reviewer", round_)
    if placement is None:
        return _place_reviewer(facts, producer, 0, (), ())
    session = session_of(facts, placement)
    if session is None and facts.expected_session.get(placement.key) is None:
        failure = f"{placement.agent_name} is gone, suspended, or controlled by another user than when it was chosen"
    elif session is None or session.view is None:
        return act(OpenSession(placement))
    else:
        driven = drive(facts, session, placement, ())
        if isinstance(driven, Plan):
            return replace(driven, outlook=driven.outlook.reviewing(placement.agent_name, session.name))
        if isinstance(driven, Settled):
            assert isinstance(session.verdict, VerdictFile)
            return act(RecordAgentReview(session, session.verdict, round_))
        failure = driven.message
    tried = [p.agent_uid for p in facts.decisions.placements if (p.role, p.round) == ("reviewer", round_)]
    return _place_reviewer(facts, producer, placement.ordinal + 1, tried, (failure,))


def _place_reviewer(
    facts: TaskFacts, producer: Placement, ordinal: int, failed: Sequence[str], failures: Sequence[str]
) -> Plan:
    round_ = producer.round
    policy = facts.task.spec.review
    named = policy.agent_ref.name if policy is not None and policy.agent_ref is not None else None
    capability = review_capability(facts.task)
    if instructed_by_producer(producer, facts.instructions_principal):
        return Plan(
            None,
            blocked(
                "NoIndependentReviewer",
                f"Capability {capability}, which instructs the reviewer, is controlled by the user of the producing "
                "Agent or its Harness; delete it and let another user apply it, or name another",
            ),
        )
    choice = choose_reviewer(
        facts.agents,
        named=named,
        capability=capability,
        producer=Producer(producer.agent_uid, producer.principal, producer.harness_principal),
        failed=failed,
        task_uid=facts.task.metadata.uid,
    )
    if choice.agent is None:
        wanted = f"Agent {named}" if named else f"an Agent with capability {capability}"
        why = "; ".join((*choice.excluded, *failures)) or "there is none in this namespace"
        return Plan(
            None,
            blocked(
                "NoIndependentReviewer",
                f"The outputs of round {round_} wait for review by {wanted}, controlled by another user than "
                f"the producing Agent: {why}. Another user must apply one",
            ),
        )
    agent = choice.agent
    return act(Place(_placement("reviewer", round_, ordinal, agent)))


def review_capability(task: Task) -> str:
    """The capability a reviewer must have, and whose Capability instructs it."""
    review = task.spec.review
    return (review.capability if review is not None else None) or DEFAULT_REVIEW_CAPABILITY


def instructed_by_producer(producer: Placement | None, instructions_principal: str | None) -> bool:
    """Whether the reviewer's instructions are the producing side's own: then no review is independent."""
    return (
        producer is not None
        and instructions_principal is not None
        and instructions_principal in (producer.principal, producer.harness_principal)
    )
