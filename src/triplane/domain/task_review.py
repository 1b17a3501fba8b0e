"""Independent review of a round: who must approve, who has, and whom to ask next (design §3.3).

``spec.review.reviewers`` approvals are needed, of as many reviewers who are independent of the producer and of one
another, and of exactly the same digests; where agents and people are asked, at least one of each. One rejection
rejects the round. Agents sit in *seats* and review at the same time; one that comes to nothing is replaced in its seat.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triplane.api.meta import Gate, Subject, Verdict
from triplane.api.task import Task
from triplane.domain.eligibility import Call, Candidate, Producer, choose_reviewers
from triplane.domain.quorum import Quorum, member_of, members, people_left, quorum_of, void_on_outputs
from triplane.domain.task_facts import (
    AcceptRound,
    DecideByPerson,
    OpenSession,
    Place,
    Placement,
    Plan,
    RecordAgentReview,
    TaskFacts,
)
from triplane.domain.task_outlook import Outlook, blocked, in_review
from triplane.domain.task_runs import Settled, act, drive, session_of
from triplane.domain.verdict import VerdictFile

DEFAULT_REVIEW_CAPABILITY = "review"


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


def review(facts: TaskFacts, producer: Placement, produced: Sequence[Subject]) -> Plan:
    """The next step of the review of these outputs, or what it waits for."""
    round_ = producer.round
    quorum = quorum_of(facts, round_)
    if quorum.complete:
        return act(AcceptRound(round_))
    if quorum.asks_people and (plan := _by_person(facts, quorum, producer, produced)) is not None:
        return plan
    free, why = people_left(facts, quorum, producer, ())
    if quorum.asks_people and not free and not quorum.by_people:
        return _stalled(facts, quorum, round_, why)
    seats = _by_agents(facts, quorum, producer, len(free)) if quorum.asks_agents else _Seats((), (), None)
    if isinstance(seats, Plan):
        return seats
    free, why = people_left(facts, quorum, producer, seats.taken)
    wanted = quorum.chairs(len(seats.taken))
    short = None
    if wanted > len(free):
        few = f"{wanted} more of review.people would have to approve, and {len(free)} can"
        short = "; ".join(filter(None, (seats.short, few, why)))
    elif seats.short is not None and not (quorum.asks_people and seats.taken):
        short = seats.short
    if short is not None and seats.plans:  # what is under way may still reject; only after that nothing moves
        return _merged(quorum, seats.plans, f"; nobody for the rest: {short}")
    if short is not None:
        return _stalled(facts, quorum, round_, short)
    if wanted <= 0:
        return _merged(quorum, seats.plans)
    return Plan(None, _waiting(quorum, round_, seats.plans, free), after=_soonest(seats.plans))


def _by_person(facts: TaskFacts, quorum: Quorum, producer: Placement, produced: Sequence[Subject]) -> Plan | None:
    for item in facts.people_reviews:
        if item.gate is Gate.OUTPUTS and void_on_outputs(facts, producer, produced, item) is None:
            decides = item.verdict is Verdict.REJECT or quorum.completed_by(agent=False)
            return act(DecideByPerson(item, producer.round, decides))
    return None


@dataclass(frozen=True, slots=True)
class _Seats:
    """How the agents on the panel stand: no step of theirs is due."""

    plans: tuple[tuple[Placement, Plan], ...]
    """Those at work, with what is said of each."""
    taken: tuple[Placement, ...]
    """Those, and the ones that have approved."""
    short: str | None
    """Why not every seat is taken."""


def _by_agents(facts: TaskFacts, quorum: Quorum, producer: Placement, people: int) -> Plan | _Seats:
    """The next step of the reviewing Agents, or how they stand. ``people`` could still approve beside them."""
    round_ = producer.round
    if instructed_by_producer(producer, facts.instructions_principal) and not quorum.by_agents:
        return _instructed(facts)
    approved = {item.agent_uid for item in quorum.given}
    plans: list[tuple[Placement, Plan]] = []
    taken: list[Placement] = []
    vacant: dict[int, str] = {}
    panel = facts.decisions.panel(round_)
    for placement in panel:
        if placement.agent_uid in approved:
            taken.append(placement)
            continue
        said = _attend(facts, quorum, placement)
        if isinstance(said, str):
            vacant[placement.seat] = said
        elif said.action is not None:
            return said
        else:
            taken.append(placement)
            plans.append((placement, said))
    missing = quorum.seats - len(taken)
    if missing <= 0:
        return _Seats(tuple(plans), tuple(taken), None)
    if instructed_by_producer(producer, facts.instructions_principal):
        return _instructed(facts)  # whoever were placed now could not begin, and would count as having failed
    if facts.review_unmet is not None:
        return Plan(None, blocked(*facts.review_unmet))
    least = max(1, quorum.policy.reviewers - len(taken) - quorum.by_people - people)
    choice, why = _choose(facts, quorum, producer, taken, range(missing, least - 1, -1))
    if choice is None:
        short = "; ".join((*why, *vacant.values())) or "there is none in this namespace"
        return _Seats(tuple(plans), tuple(taken), short)
    seat = min(vacant, default=len(panel))
    ordinal = max((item.ordinal for item in _placed(facts, round_)), default=-1) + 1
    return act(
        Place(
            Placement(
                "reviewer",
                round_,
                ordinal,
                choice.uid,
                choice.name,
                choice.principal,
                choice.harness_principal,
                choice.model_family,
                seat,
            )
        )
    )


def _attend(facts: TaskFacts, quorum: Quorum, placement: Placement) -> Plan | str:
    """Bring one reviewing Agent to its verdict: the step, the wait, or why it comes to nothing."""
    round_ = placement.round
    session = session_of(facts, placement)
    if session is None and facts.expected_session.get(placement.key) is None:
        return f"{placement.agent_name} is gone, suspended, or controlled by another user than when it was chosen"
    if session is None or session.view is None:
        return act(OpenSession(placement))
    driven = drive(facts, session, placement, ())
    if isinstance(driven, Plan):
        return replace(driven, outlook=driven.outlook.reviewing(placement.agent_name, session.name))
    if not isinstance(driven, Settled):
        return driven.message
    assert isinstance(session.verdict, VerdictFile)
    if session.verdict.verdict is Verdict.REJECT:
        return act(RecordAgentReview(session, session.verdict, round_))
    for member in members(facts, quorum, round_):
        if not member.uid and member.principal in (placement.principal, placement.harness_principal):
            return f"{placement.agent_name} or its Harness is controlled by a user who has approved already"
    return act(RecordAgentReview(session, session.verdict, round_, quorum.completed_by(agent=True)))


def _choose(
    facts: TaskFacts, quorum: Quorum, producer: Placement, taken: Sequence[Placement], counts: Sequence[int]
) -> tuple[Candidate | None, tuple[str, ...]]:
    """Whom to place next: the first of as many as can be had. Nobody is unless the panel can be filled; ``counts`` are
    more than one where people may take the rest."""
    policy, placed = quorum.policy, _placed(facts, producer.round)
    beside = [member_of(item) for item in taken]
    beside += [item for item in members(facts, quorum, producer.round) if not item.uid]
    why: tuple[str, ...] = ()
    for count in counts:
        call = Call(
            named=policy.agent_ref.name if policy.agent_ref is not None else None,
            capability=review_capability(facts.task),
            count=count,
            beside=tuple(beside),
            distinct_model_family=policy.distinct_model_family,
            failed=frozenset(item.agent_uid for item in placed),
        )
        choice = choose_reviewers(
            facts.agents,
            call,
            Producer(producer.agent_uid, producer.principal, producer.harness_principal, producer.model_family),
            facts.task.metadata.uid,
        )
        if choice.agent is not None:
            return choice.agent, ()
        why = why or choice.excluded
    return None, why


def _placed(facts: TaskFacts, round_: int) -> list[Placement]:
    return [item for item in facts.decisions.placements if (item.role, item.round) == ("reviewer", round_)]


def _instructed(facts: TaskFacts) -> Plan:
    return Plan(
        None,
        blocked(
            "NoIndependentReviewer",
            f"Capability {review_capability(facts.task)}, which instructs the reviewer, is controlled by the user of "
            "the producing Agent or its Harness; delete it and let another user apply it, or name another",
        ),
    )


def _stalled(facts: TaskFacts, quorum: Quorum, round_: int, why: str) -> Plan:
    policy = quorum.policy
    who = []
    if quorum.asks_agents:
        named = policy.agent_ref.name if policy.agent_ref is not None else None
        who.append(f"Agent {named}" if named else f"an Agent with capability {review_capability(facts.task)}")
    if quorum.asks_people:
        who.append(" or ".join(policy.people or ()))
    needed = "" if policy.reviewers == 1 else f"{policy.reviewers} approvals are needed, {len(quorum.given)} given. "
    message = (
        f"{needed}The outputs of round {round_} wait for review by {' and '.join(who)}, controlled by another user "
        f"than the producing Agent{' and each other' if policy.reviewers > 1 else ''}: {why}"
    )
    if quorum.asks_agents:
        message += ". Another user must apply one"
    return Plan(None, blocked("NoIndependentReviewer", message))


def _merged(quorum: Quorum, plans: Sequence[tuple[Placement, Plan]], remark: str = "") -> Plan:
    """One status for all agents at work."""
    first = plans[0][1]
    if quorum.policy.reviewers == 1:
        return first
    names = [placement.agent_name for placement, _ in plans]
    review_ = "reviews" if len(names) == 1 else "review"
    message = f"{_count(quorum)}; {' and '.join(names)} {review_} the outputs{remark}"
    seen = in_review("InReview", message, reviewer=", ".join(names))
    seen = replace(seen, review_session=first.outlook.review_session, transient=first.outlook.transient)
    return Plan(None, seen, after=_soonest(plans))


def _soonest(plans: Sequence[tuple[Placement, Plan]]) -> float | None:
    return min((plan.after for _, plan in plans if plan.after is not None), default=None)


def _count(quorum: Quorum) -> str:
    return f"{quorum.by_agents + quorum.by_people} of {quorum.policy.reviewers} have approved"


def _waiting(quorum: Quorum, round_: int, plans: Sequence[tuple[Placement, Plan]], free: Sequence[str]) -> Outlook:
    """Some person's word is missing, perhaps beside that of agents at work."""
    asked = f"Waiting for a Review of round {round_} by {' or '.join(free)}"
    if quorum.policy.reviewers == 1:
        return in_review("WaitingForPerson", asked, reviewer=", ".join(free))
    names = [placement.agent_name for placement, _ in plans]
    work = f"; {' and '.join(names)} at work" if names else ""
    return in_review("WaitingForPerson", f"{asked}; {_count(quorum)}{work}", reviewer=", ".join((*names, *free)))
