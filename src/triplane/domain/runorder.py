"""The work order of one run: what the session was offered, plus what differs from run to run.

The gateway hands it out with the claim, and reads from it what the run may fetch and what it must leave.
"""

from collections.abc import Mapping
from typing import Any

from triplane.domain.session import Offer


def order_of_run(offer: Offer, run: int, run_inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The document of docs/reference/exec-protocol.md plus ``harness``.

    Members of ``run_inputs`` (findings, resume state) stand over those of the offer; ``session`` and ``run`` are
    always ours.
    """
    return {
        "findings": [],
        **offer.work_order,
        **run_inputs,
        "session": {"uid": offer.session_uid, "name": offer.name, "namespace": offer.namespace},
        "run": run,
    }


def readable_digests(order: Mapping[str, Any]) -> frozenset[str]:
    """Digests of the blobs this run may read: its inputs, what it reviews, and its program. Nothing else."""
    review = order.get("review") or {}
    named = [*(order.get("inputs") or ()), *(review.get("subjects") or ()), order.get("harness") or {}]
    return frozenset(item["digest"] for item in named if item.get("digest"))
