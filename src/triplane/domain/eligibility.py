"""Who may do the work, and who may review it.

Independence (design §3.3): the reviewer differs from the producer in Agent, in session and in controlling
principal: the user whom admission stamped on the Agent (and on its Harness). Without a stamp nobody reviews. Those who
review together are independent of one another in the same way: two approvals of one user are one approval.

Every executor there is runs harnesses without a ServiceAccount of their own. One that applies an Agent is a user like
any other, and so its controlling principal.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

PANELS_TRIED: Final = 10_000
"""Steps of the search for reviewers who are independent of one another."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An Agent as the decision sees it."""

    uid: str
    name: str
    generation: int
    capabilities: frozenset[str]
    principal: str | None
    """Principal id of the user who controls it; None when admission stamped nobody."""
    harness_principal: str | None
    """Principal id of the user who controls its Harness, and with it the program that runs."""
    active: bool
    harness: str
    harness_found: bool
    users: frozenset[str] = frozenset()
    """Names of the users who control Agent and Harness, as people reviewers are named."""
    model_family: str | None = None
    """Family of its model, as declared."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The Agent chosen, or why nobody was: ``excluded`` says it per Agent, in words."""

    agent: Candidate | None
    excluded: tuple[str, ...] = ()


def unfit(agent: Candidate, required: Collection[str]) -> str | None:
    """Why this Agent can do no work that needs these capabilities; None if it can."""
    if not agent.active:
        return f"{agent.name} is suspended"
    if missing := sorted(set(required) - agent.capabilities):
        return f"{agent.name} lacks capability {', '.join(missing)}"
    if not agent.harness_found:
        return f"{agent.name} names Harness {agent.harness}, which does not exist"
    return None


@dataclass(frozen=True, slots=True)
class Producer:
    """Whose work is judged: the Agent as it was placed."""

    uid: str
    principal: str | None
    harness_principal: str | None
    model_family: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """Who reviews beside others: an Agent as it was placed, or a person (without UID, its own Harness' user)."""

    name: str
    uid: str
    principal: str | None
    harness_principal: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """What reviewers are looked for: the named Agent, or any with the capability; how many, beside whom."""

    named: str | None
    capability: str
    count: int = 1
    beside: tuple[Member, ...] = ()
    distinct_model_family: bool = False
    failed: Collection[str] = ()
    """UIDs of Agents that had their turn in this round."""


def dependent(agent: Candidate, producer: Producer) -> str | None:
    """Why this Agent is no independent reviewer of that producer; None if it is one.

    Whoever controls one side's Agent may not control the other side's Harness either: the Harness is the
    program that runs. A third user's Harness may serve both.
    """
    if agent.uid == producer.uid:
        return f"{agent.name} produced the outputs"
    if agent.principal is None or agent.harness_principal is None:
        return f"{agent.name} or its Harness has no recorded controlling user"
    if producer.principal is None or producer.harness_principal is None:
        return "the producing Agent or its Harness has no recorded controlling user"
    if agent.principal == producer.principal:
        return f"{agent.name} is controlled by the same user as the producing Agent"
    if agent.harness_principal == producer.principal:
        return f"{agent.name} runs a Harness controlled by the user of the producing Agent"
    if producer.harness_principal == agent.principal:
        return f"{agent.name} is controlled by the user whose Harness the producing Agent ran"
    return None


def choose_producer(
    agents: Sequence[Candidate], *, named: str | None, required: Collection[str], task_uid: str
) -> Choice:
    """The named Agent if it is fit, else any fit one; the choice depends on nothing but the arguments."""
    pool = [agent for agent in agents if named is None or agent.name == named]
    excluded = {agent.uid: reason for agent in pool if (reason := unfit(agent, required))}
    fit = [agent for agent in pool if agent.uid not in excluded]
    return _pick(fit, excluded.values(), task_uid)


def same_family(agent: Candidate, producer: Producer) -> str | None:
    """Why this Agent's model is not surely of another family than the producer's; None if it is, as declared."""
    if producer.model_family is None:
        return "the producing Agent declares no modelFamily, so that none is surely another"
    if agent.model_family is None:
        return f"{agent.name} declares no modelFamily"
    if agent.model_family == producer.model_family:
        return f"{agent.name} has the modelFamily of the producing Agent, {agent.model_family}"
    return None


def beside(agent: Candidate, member: Member) -> str | None:
    """Why this Agent's word would not be one beside that reviewer's; None if it is."""
    if agent.uid == member.uid:
        return f"{agent.name} reviews already"
    if agent.principal in (member.principal, member.harness_principal) or agent.harness_principal == member.principal:
        return f"{agent.name} or its Harness is controlled by the user of {member.name}, who reviews too"
    return None


def choose_reviewers(agents: Sequence[Candidate], call: Call, producer: Producer, task_uid: str) -> Choice:
    """The first of ``call.count`` Agents who are independent of the producer, of each other and of those beside whom
    they review; nobody unless there are so many."""
    named = call.named
    pool = [agent for agent in agents if (agent.name == named if named else call.capability in agent.capabilities)]
    required: Collection[str] = () if named else (call.capability,)
    excluded = {}
    for agent in pool:
        reason = (
            unfit(agent, required)
            or dependent(agent, producer)
            or (same_family(agent, producer) if call.distinct_model_family else None)
            or next(filter(None, (beside(agent, member) for member in call.beside)), None)
            or (f"{agent.name} could not complete its review of this round" if agent.uid in call.failed else None)
        )
        if reason is not None:
            excluded[agent.uid] = reason
    fit = sorted((agent for agent in pool if agent.uid not in excluded), key=lambda item: _weight(item, task_uid))
    panel = _panel(_distinct(fit), call.count)
    said = tuple(sorted(excluded.values()))
    if panel is not None:
        return Choice(panel[0], said)
    if fit and call.count > 1:
        names = ", ".join(agent.name for agent in fit)
        said += (f"{call.count} are needed, but among {names} there are not so many of different controlling users",)
    return Choice(None, said)


def _distinct(fit: Sequence[Candidate]) -> list[Candidate]:
    """One Agent of each pair of users: the others of that pair could never sit beside it."""
    kept: dict[tuple[str | None, str | None], Candidate] = {}
    for agent in fit:
        kept.setdefault((agent.principal, agent.harness_principal), agent)
    return list(kept.values())


def _panel(fit: Sequence[Candidate], count: int) -> tuple[Candidate, ...] | None:
    """``count`` Agents that are independent of one another, the first ones that do; None if there are not so many.

    Tries what may be tried in ``PANELS_TRIED`` steps, in order: users who run each other's Harnesses in great numbers
    might hide a panel, never make a dependent one.
    """
    steps = 0

    def extend(chosen: tuple[Candidate, ...], rest: Sequence[Candidate]) -> tuple[Candidate, ...] | None:
        nonlocal steps
        if len(chosen) == count:
            return chosen
        for number, agent in enumerate(rest):
            steps += 1
            if steps > PANELS_TRIED or len(chosen) + len(rest) - number < count:
                return None
            if any(beside(agent, _member(other)) for other in chosen):
                continue
            if found := extend((*chosen, agent), rest[number + 1 :]):
                return found
        return None

    return extend((), fit)


def _member(agent: Candidate) -> Member:
    return Member(agent.name, agent.uid, agent.principal, agent.harness_principal)


def _pick(fit: Sequence[Candidate], excluded: Collection[str], task_uid: str) -> Choice:
    if not fit:
        return Choice(None, tuple(sorted(excluded)))
    return Choice(min(fit, key=lambda agent: _weight(agent, task_uid)), tuple(sorted(excluded)))


def _weight(agent: Candidate, task_uid: str) -> bytes:
    """Rendezvous hashing: Tasks spread over Agents, and a new Agent moves no placed Task."""
    return hashlib.sha256(f"{task_uid}/{agent.uid}".encode()).digest()
