"""Who may do the work, and who may review it.

Independence (design §3.3): the reviewer differs from the producer in Agent, in session and in controlling
principal: the user whom admission stamped on the Agent (and on its Harness). Without a stamp nobody reviews.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass


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


def choose_reviewer(
    agents: Sequence[Candidate],
    *,
    named: str | None,
    capability: str,
    producer: Producer,
    failed: Collection[str],
    task_uid: str,
) -> Choice:
    """An independent Agent: the named one, or any with the capability. ``failed`` are the UIDs of Agents
    whose review of this round has come to nothing."""
    if named is not None:
        pool = [agent for agent in agents if agent.name == named]
        required: Collection[str] = ()
    else:
        pool = [agent for agent in agents if capability in agent.capabilities]
        required = (capability,)
    excluded = {}
    for agent in pool:
        reason = unfit(agent, required) or dependent(agent, producer)
        if reason is None and agent.uid in failed:
            reason = f"{agent.name} could not complete its review of this round"
        if reason is not None:
            excluded[agent.uid] = reason
    fit = [agent for agent in pool if agent.uid not in excluded]
    return _pick(fit, excluded.values(), task_uid)


def _pick(fit: Sequence[Candidate], excluded: Collection[str], task_uid: str) -> Choice:
    """Rendezvous hashing: Tasks spread over Agents, and a new Agent moves no placed Task."""
    if not fit:
        return Choice(None, tuple(sorted(excluded)))
    best = min(fit, key=lambda agent: hashlib.sha256(f"{task_uid}/{agent.uid}".encode()).digest())
    return Choice(best, tuple(sorted(excluded)))
