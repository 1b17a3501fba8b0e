"""Who may do the work, and who may review it.

Independence (design §3.3): the reviewer differs from the producer in Agent, in session and in controlling
principal, the user whom admission stamped on the Agent. An Agent without a stamp reviews nothing.
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
    active: bool
    harness: str
    harness_found: bool


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


def dependent(agent: Candidate, *, producer_uid: str, producer_principal: str | None) -> str | None:
    """Why this Agent is no independent reviewer of that producer; None if it is one."""
    if agent.uid == producer_uid:
        return f"{agent.name} produced the outputs"
    if agent.principal is None:
        return f"{agent.name} has no recorded controlling user"
    if producer_principal is None:
        return "the producing Agent has no recorded controlling user"
    if agent.principal == producer_principal:
        return f"{agent.name} is controlled by the same user as the producing Agent"
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
    producer_uid: str,
    producer_principal: str | None,
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
        reason = unfit(agent, required) or dependent(
            agent, producer_uid=producer_uid, producer_principal=producer_principal
        )
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
