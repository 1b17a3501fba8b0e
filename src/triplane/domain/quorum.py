"""What a round of review needs and what it has: the quorum, who counts in it, and whose word adds nothing.

``spec.review.reviewers`` approvals are needed, of as many reviewers who are independent of the producer and of one
another, and of exactly the same digests; where agents and people are asked, at least one of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from triplane.api.meta import ReviewPolicy, Subject, Verdict
from triplane.domain.eligibility import Member
from triplane.domain.task_facts import Approval, Placement, TaskFacts
from triplane.domain.verdict import Matter, Moment, PersonReview, void_for


@dataclass(frozen=True, slots=True)
class Quorum:
    """What a round needs, and what it has."""

    policy: ReviewPolicy
    given: tuple[Approval, ...]

    @property
    def asks_people(self) -> bool:
        return bool(self.policy.people)

    @property
    def asks_agents(self) -> bool:
        return not self.policy.people or self.policy.agent_ref is not None or self.policy.capability is not None

    @property
    def by_agents(self) -> int:
        return sum(1 for item in self.given if item.agent_uid is not None) if self.asks_agents else 0

    @property
    def by_people(self) -> int:
        people = {item.principal for item in self.given if item.agent_uid is None}
        return len(people) if self.asks_people else 0

    @property
    def complete(self) -> bool:
        """Whether nobody else needs to approve."""
        return self._enough(self.by_agents, self.by_people)

    def completed_by(self, *, agent: bool) -> bool:
        """Whether one more approval is the last: then it decides the round by itself."""
        return not self.given and self._enough(int(agent), int(not agent))

    def _enough(self, agents: int, people: int) -> bool:
        return (
            agents + people >= self.policy.reviewers
            and agents >= int(self.asks_agents)
            and people >= int(self.asks_people)
        )

    @property
    def seats(self) -> int:
        """Agents who are to review: in a mixed panel all but one, and fewer as people approve."""
        if not self.asks_agents:
            return 0
        return max(1, self.policy.reviewers - (max(1, self.by_people) if self.asks_people else 0))

    def chairs(self, agents: int) -> int:
        """People still needed when so many agents are on the panel."""
        return max(self.policy.reviewers - agents, 1) - self.by_people if self.asks_people else 0


def quorum_of(facts: TaskFacts, round_: int) -> Quorum:
    """As the Task asks for it now: approvals that were given stay given when the Task is edited."""
    return Quorum(facts.task.spec.review or ReviewPolicy(), facts.decisions.approvals_of(round_))


def outputs_matter(facts: TaskFacts, producer: Placement, produced: Sequence[Subject]) -> Matter:
    """What people are asked about a round, and who may answer."""
    return Matter(
        subjects=tuple(produced),
        since=facts.produced_since.get(producer.round, Moment()),
        people=tuple(quorum_of(facts, producer.round).policy.people or ()),
        where="spec.review.people",
        controllers=frozenset((producer.principal, producer.harness_principal)),
    )


def void_on_outputs(
    facts: TaskFacts, producer: Placement, produced: Sequence[Subject], item: PersonReview
) -> str | None:
    """Why a person's Review of the open round adds nothing; None if it is to be counted now."""
    round_ = producer.round
    quorum = quorum_of(facts, round_)
    if item.uid in facts.decisions.counted:
        return f"Review {item.name} is counted"
    if not quorum.asks_people:
        return f"Review {item.name} is by a person, and spec.review.people asks none"
    if item.round != round_:
        decided = f", and round {item.round} is decided" if item.round < round_ else ""
        return f"Review {item.name} is for round {item.round}; round {round_} is open{decided}"
    if (void := void_for(item, outputs_matter(facts, producer, produced))) is not None:
        return void
    if item.verdict is Verdict.REJECT:
        return None
    for member in members(facts, quorum, round_):
        if item.principal in (member.principal, member.harness_principal):
            who = "who has approved already" if not member.uid else f"who controls {member.name}, which has approved"
            return f"Review {item.name} is by {item.username}, {who}; another user must approve too"
    return None


def members(facts: TaskFacts, quorum: Quorum, round_: int) -> tuple[Member, ...]:
    """Those who have approved, as others must be independent of them."""
    panel = {item.agent_uid: item for item in facts.decisions.placements if (item.role, item.round) == (
        "reviewer", round_)}  # fmt: skip
    members = []
    for item in quorum.given:
        placed = panel.get(item.agent_uid or "")
        if placed is not None:
            members.append(member_of(placed))
        else:
            members.append(Member(item.review_name or "", "", item.principal, item.principal))
    return tuple(members)


def member_of(placement: Placement) -> Member:
    return Member(placement.agent_name, placement.agent_uid, placement.principal, placement.harness_principal)


def people_left(
    facts: TaskFacts, quorum: Quorum, producer: Placement, seated: Sequence[Placement]
) -> tuple[tuple[str, ...], str]:
    """Names of those who could still approve, and why the others could not."""
    named = quorum.policy.people or ()
    if None in (producer.principal, producer.harness_principal):
        return (), (
            "the producing Agent or its Harness has no recorded controlling user. Make both anew, and a new Task"
        )
    said = {item.uid: item.username for item in facts.people_reviews}
    approved = {said.get(item.review_uid or "") for item in quorum.given if item.agent_uid is None}
    own = _users_of(facts, [producer])
    panel = _users_of(facts, seated)
    why = []
    if both := [name for name in named if name in own]:
        everybody = "everybody in review.people" if len(both) == len(named) else "of review.people"
        why.append(
            f"{everybody} ({', '.join(both)}) controls the producing Agent or its Harness; name somebody else there"
        )
    if both := [name for name in named if name in panel]:
        why.append(f"{', '.join(both)} controls an Agent that reviews, or its Harness")
    return tuple(name for name in named if name not in own | panel | approved), "; ".join(why)


def _users_of(facts: TaskFacts, placements: Sequence[Placement]) -> frozenset[str]:
    uids = {item.agent_uid for item in placements}
    return frozenset(name for agent in facts.agents if agent.uid in uids for name in agent.users)
