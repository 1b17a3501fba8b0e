"""The log entries that precede a run: the offer of a session and the launch permit (design §3.1)."""

from triplane.audit.digest import digest_of_json
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject
from triplane.domain.session import Offer, Permit


def session_subject(offer: Offer) -> EventSubject:
    """The AgentSession an offer stands for; its spec is immutable, so its generation is 1."""
    return EventSubject("AgentSession", offer.namespace, offer.name, offer.session_uid, 1)


def graph_stream(graph_uid: str) -> str:
    """The stream of everything that happens in a Graph."""
    return f"graph/{graph_uid}"


def session_offered(offer: Offer) -> EventBody:
    """``session.offered/<session>/1``: claimable once permitted."""
    return EventBody(
        id=event_id("session.offered", offer.session_uid, 1),
        type="session.offered",
        stream=graph_stream(offer.graph_uid),
        actor=SYSTEM_ACTOR,
        subject=session_subject(offer),
        data={
            "taskUid": offer.task_uid,
            "agentUid": offer.agent_uid,
            "agentName": offer.agent_name,
            "role": offer.role,
            "snapshotDigest": offer.snapshot_digest,
        },
    )


def run_permitted(offer: Offer, permit: Permit) -> EventBody:
    """``run.permitted/<session>/<run>/<counter>``: leave to launch, and on which state it was decided."""
    return EventBody(
        id=event_id("run.permitted", permit.session_uid, permit.run, str(permit.counter)),
        type="run.permitted",
        stream=graph_stream(offer.graph_uid),
        actor=SYSTEM_ACTOR,
        subject=session_subject(offer),
        data={
            "run": permit.run,
            "counter": permit.counter,
            "snapshotDigest": permit.snapshot_digest,
            "authorityDigest": permit.authority_digest,
            "policyDigest": permit.policy_digest,
            "revocationRevision": permit.revocation_revision,
            "runInputsDigest": digest_of_json(permit.run_inputs),
        },
    )
