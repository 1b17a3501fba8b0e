"""The notary beside the reconcilers: nothing is reconciled before the log is found to be the one that was signed, and
all ends when it turns out later not to be."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from triplane.controllers.distribution import Distribution
from triplane.controllers.notary import Notary, Record
from triplane.domain.continuity import parse_accepted
from triplane.errors import TriplaneError
from triplane.operator.metrics import Metrics
from triplane.ports import Clock, ConfigMaps
from triplane.settings import Settings
from triplane.wiring import OperatorBackends, open_outside

log = structlog.get_logger(__name__)


def open_notary(settings: Settings, planes: OperatorBackends, config_maps: ConfigMaps, clock: Clock) -> Notary:
    """The notary of these settings. Raises ``InvalidInput`` for an anchor or a witness that cannot be one."""
    outside = open_outside(settings, config_maps)
    accepted = None if settings.accept_rollback is None else parse_accepted(settings.accept_rollback)
    record = Record(planes.checkpoints, outside.ledger, outside.keys)
    distribution = Distribution(
        planes.log,
        planes.checkpoints,
        outside.ledger,
        clock,
        anchors=outside.anchors,
        witnesses=outside.witnesses,
        known=lambda: record.known(planes.log.origin),
        accepted=accepted,
    )
    if settings.witness_quorum > len(outside.witnesses):
        log.warning(
            "fewer witnesses are named than readers will ask for",
            quorum=settings.witness_quorum,
            witnesses=len(outside.witnesses),
        )
    return Notary(planes.log, record, distribution, clock, seconds=settings.checkpoint_seconds, accepted=accepted)


@asynccontextmanager
async def notarised(notary: Notary, stop: asyncio.Event) -> AsyncIterator[None]:
    """Sign while the body runs. When that must end, ``stop`` is set, and what ended it is raised once the body has."""
    signing = asyncio.create_task(notary.run(), name="notary")
    signing.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        signing.cancel()
        (ended,) = await asyncio.gather(signing, return_exceptions=True)
        await notary.close()
    if isinstance(ended, Exception):
        if isinstance(ended, TriplaneError):
            log.error("no checkpoint can be signed any more", error=str(ended))
        raise ended


def expose_notary(metrics: Metrics, notary: Notary, clock: Clock, quorum: int) -> None:
    """Have ``metrics`` report on checkpoints."""
    places = notary.distribution
    metrics.gauge(
        "checkpoint_size", "Entries under the last signed checkpoint; -1 before the first", lambda: _size(notary)
    )
    metrics.gauge(
        "checkpoint_age_seconds",
        "Seconds since this process last signed a checkpoint; -1 before the first",
        lambda: -1.0 if notary.signed_at is None else clock.monotonic() - notary.signed_at,
    )
    metrics.gauge("checkpoint_cosignatures", "Witnesses that cosigned the last one", lambda: places.cosignatures)
    metrics.gauge("checkpoint_quorum", "Cosignatures that readers will ask for", lambda: quorum)
    metrics.counter(
        "checkpoint_anchor_failures",
        "Checkpoints that an anchor did not take",
        lambda: sum(place.failures for place in places.anchored),
    )
    metrics.counter(
        "checkpoint_witness_failures",
        "Checkpoints that a witness did not cosign",
        lambda: sum(place.failures for place in places.witnessed),
    )
    metrics.gauges_by(
        "checkpoint_anchors",
        "Anchors, by how the log stood to each when it was last read",
        "standing",
        lambda: {
            standing: float(count)
            for standing, count in Counter(
                place.standing.value if place.standing else "Unread" for place in places.anchored
            ).items()
        },
    )


def _size(notary: Notary) -> float:
    return -1.0 if notary.signed is None else float(notary.signed.size)
