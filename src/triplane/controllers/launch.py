"""The launch permit: leave to run, decided on what the API server says now, not on the index."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from triplane.api.authority import Grant
from triplane.api.policy import Enforcement
from triplane.audit.entry import event_id
from triplane.controllers.beginning import Beginnings
from triplane.controllers.context import Context
from triplane.controllers.launch_policies import LaunchPolicies, LaunchQuestion, refusal
from triplane.domain.authority import moment
from triplane.domain.events import run_permitted
from triplane.domain.policy import PolicyViolation
from triplane.domain.session import PERMIT_SECONDS, Offer, Permit
from triplane.errors import Conflict
from triplane.ports import KubeEvent


class StaleView(Conflict):
    """An object the decision rests on is not as the index has it; decide again on what is there."""


@dataclass(frozen=True)
class LaunchGrounds:
    """What one run is to be permitted on."""

    offer: Offer
    run: int
    run_inputs: Mapping[str, Any]
    ancestors: Sequence[Mapping[str, Any]]
    """The objects as the decision saw them: Task, Graph, Node, Agent, Harness, and all that was frozen."""
    question: LaunchQuestion
    """What Policies are asked about it."""
    most_sessions: Mapping[str, int]
    """UID of each object above that limits how many sessions begin, to how many; empty once this one has begun."""


async def permit_run(
    context: Context, grounds: LaunchGrounds, policies: LaunchPolicies, beginnings: Beginnings
) -> None:
    """Re-read every ancestor and every Policy uncached, log the permit, and write it.

    The authority in it is the session's: it rests on the specs of Graph, Node, Task and Agent, and those are the
    generations it was settled from. Raises ``StaleView`` when an ancestor is gone, being deleted, another incarnation
    or another generation, when a Policy denies the run, and when the time of the authority is over: whoever decides
    again sees why. The revocation revision and the clock are read before all that, so whatever is taken back after
    that voids the permit in the claim transaction, and an operator that was paused half-way writes a permit that has
    expired.
    """
    offer, run, ancestors, question = grounds.offer, grounds.run, grounds.ancestors, grounds.question
    if grounds.most_sessions:
        await beginnings.clear(offer.namespace)
    decided_at = await context.sessions.now()
    revision = await context.sessions.revocation_revision()
    _, found = await asyncio.gather(confirm(context, ancestors), policies.read(offer.namespace))
    fresh = [context.index.by_uid(each["metadata"]["uid"]) for each in ancestors]
    said = await policies.decide(found, question.on(fresh))
    if (why := refusal(said)) is not None:
        raise StaleView(f"{why}; deciding again")
    run_inputs = dict(grounds.run_inputs)
    if said.allow_unenforced:
        run_inputs["allowUnenforced"] = sorted(axis.value for axis in said.allow_unenforced)
    counter = await context.sessions.next_permit_counter(offer.session_uid, run)
    while await context.log.get(_permit_id(offer, run, counter)) is not None:
        counter += 1  # logged by a predecessor that died before it wrote the permit: never in force
    permit = Permit(
        session_uid=offer.session_uid,
        run=run,
        counter=counter,
        snapshot_digest=offer.snapshot_digest,
        revocation_revision=revision,
        authority_digest=question.authority_digest,
        policy_digest=said.digest,
        run_inputs=run_inputs,
        seconds=_seconds(question.authority, decided_at),
        decided_at=decided_at,
        agent_limit=next(
            (
                seen["spec"].get("maxConcurrentSessions")
                for seen in ancestors
                if (seen["kind"], seen["metadata"]["uid"]) == ("Agent", offer.agent_uid)
            ),
            None,
        ),
    )
    if grounds.most_sessions:
        await beginnings.take(offer.session_uid, grounds.most_sessions)
    for warning in said.violations:
        if warning.enforcement is Enforcement.WARN:
            await context.cluster.emit(_warning(question, warning))
    await context.log.append([run_permitted(offer, permit, asked=bool(said.asked))])
    await context.sessions.permit(permit)


def _seconds(authority: Grant, decided_at: datetime) -> float:
    """How long the permit may live: not beyond the authority it is for."""
    if authority.expires_at is None:
        return PERMIT_SECONDS
    left = (moment(authority.expires_at) - decided_at.astimezone(UTC)).total_seconds()
    if left <= 0:
        raise StaleView(f"its authority has expired at {authority.expires_at}; deciding again")
    return min(float(PERMIT_SECONDS), left)


def _warning(question: LaunchQuestion, warning: PolicyViolation) -> KubeEvent:
    message = f"Policy {warning.policy_namespace}/{warning.policy} ({warning.rule}): {warning.message}"
    key = f"{question.task['metadata']['uid']}/{warning.policy_uid}/{warning.policy_generation}/{warning.rule}"
    return KubeEvent(question.task, "Warning", "PolicyWarning", message[:1000], key)


def _permit_id(offer: Offer, run: int, counter: int) -> str:
    return event_id("run.permitted", offer.session_uid, run, str(counter))


async def confirm(context: Context, ancestors: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``StaleView`` unless every object still stands as it was seen. Refreshes the index."""
    fresh = await asyncio.gather(
        *(
            context.cluster.get(seen["kind"], seen["metadata"].get("namespace", ""), seen["metadata"]["name"])
            for seen in ancestors
        )
    )
    for seen, now in zip(ancestors, fresh, strict=True):
        name = f"{seen['kind']} {seen['metadata']['name']}"
        if now is None:
            raise StaleView(f"{name} no longer exists: nothing is launched under it")
        context.index.put(now)
        if now["metadata"]["uid"] != seen["metadata"]["uid"]:
            raise StaleView(f"{name} was deleted and made anew; deciding again")
        if now["metadata"].get("deletionTimestamp"):
            raise StaleView(f"{name} is being deleted: nothing is launched under it")
        if now["metadata"].get("generation") != seen["metadata"].get("generation"):
            raise StaleView(f"{name} has changed since it was read; deciding again")
