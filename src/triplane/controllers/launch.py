"""The launch permit: leave to run, decided on what the API server says now, not on the index."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from triplane.audit.entry import event_id
from triplane.controllers.context import Context
from triplane.domain.events import run_permitted
from triplane.domain.session import Offer, Permit
from triplane.errors import Conflict


class StaleView(Conflict):
    """An object the decision rests on is not as the index has it; decide again on what is there."""


async def permit_run(
    context: Context,
    offer: Offer,
    run: int,
    run_inputs: Mapping[str, Any],
    ancestors: Sequence[Mapping[str, Any]],
) -> None:
    """Re-read every ancestor uncached, log the permit, and write it, with the Agent's limit of sessions at work.

    ``ancestors`` are the objects as the decision saw them: Task, Graph, Agent, Harness, Capabilities. Raises
    ``StaleView`` when one is gone, being deleted, another incarnation or another generation; the revocation
    revision and the clock are read before them, so a revocation in the Task after that voids the permit in the claim
    transaction, and an operator that was paused half-way writes a permit that has expired.
    """
    decided_at = await context.sessions.now()
    revision = await context.sessions.revocation_revision()
    await confirm(context, ancestors)
    counter = await context.sessions.next_permit_counter(offer.session_uid, run)
    while await context.log.get(_permit_id(offer, run, counter)) is not None:
        counter += 1  # logged by a predecessor that died before it wrote the permit: never in force
    permit = Permit(
        session_uid=offer.session_uid,
        run=run,
        counter=counter,
        snapshot_digest=offer.snapshot_digest,
        revocation_revision=revision,
        run_inputs=run_inputs,
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
    await context.log.append([run_permitted(offer, permit)])
    await context.sessions.permit(permit)


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
