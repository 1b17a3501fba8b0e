"""The continuous verifier beside the reconcilers. A broken log stops nothing: the operator goes on reporting, and says
so wherever an admin may look: in its own log, in its metrics, as an Event, and as a condition in the ConfigMap
``triplane-system/triplane-log``, which ``triplane status`` shows. While all is well nothing is written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from triplane.audit.checkpoint import CheckpointTrust
from triplane.audit.model import Break
from triplane.controllers.rescan import Pace, Rescan
from triplane.operator.metrics import Metrics
from triplane.ports import CheckpointStore, Clock, Cluster, ConfigMaps, EventLog, KubeEvent
from triplane.settings import Settings

log = structlog.get_logger(__name__)

NAMESPACE: Final = "triplane-system"
NAME: Final = "triplane-log"
REASON: Final = "LogBroken"


class Herald:
    """Tells the API server how the log is."""

    def __init__(self, cluster: Cluster, config_maps: ConfigMaps, clock: Clock) -> None:
        self._cluster = cluster
        self._config_maps = config_maps
        self._clock = clock

    async def tell(self, broken: Break | None) -> None:
        """Set the condition if it is another one; with a break, an Event too. Raises ``Fenced`` and ``Unavailable``."""
        held = await self._config_maps.read_config_map(NAMESPACE, NAME)
        if broken is None:
            if held is not None and held.get("verified") == "False":
                await self._set("True", "Verified", "the log was read again, and nothing is wrong with it any more")
            return
        if held is None or (held.get("verified"), held.get("sequence")) != ("False", str(broken.seq)):
            await self._set("False", broken.reason, broken.message, str(broken.seq), broken.remedy)
        regarding = {"kind": "ConfigMap", "metadata": {"namespace": NAMESPACE, "name": NAME}}
        message = f"entry {broken.seq}: {broken.reason}: {broken.message}. What to do: {broken.remedy}"
        await self._cluster.emit(KubeEvent(regarding, "Warning", REASON, message, f"{broken.seq}/{broken.reason}"))

    async def _set(self, verified: str, reason: str, message: str, sequence: str = "", remedy: str = "") -> None:
        since = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"verified": verified, "reason": reason, "message": message, "sequence": sequence, "remedy": remedy}
        await self._config_maps.write_config_map(NAMESPACE, NAME, {**said, "since": since})


def open_rescan(
    settings: Settings,
    event_log: EventLog,
    checkpoints: CheckpointStore,
    trust: Callable[[], CheckpointTrust | None],
    herald: Herald,
) -> Rescan | None:
    """The verifier of these settings; None where they switch it off."""
    if not settings.verify_entries_per_second:
        return None
    pace = Pace(settings.verify_entries_per_second, settings.verify_rest_seconds)
    return Rescan(event_log, checkpoints, trust, herald.tell, pace)


@asynccontextmanager
async def rescanning(rescan: Rescan | None, clock: Clock) -> AsyncIterator[None]:
    """Verify while the body runs. Its end, whatever ends it, is not the body's: a fenced operator ends by itself."""
    task = None if rescan is None else asyncio.create_task(rescan.run(clock), name="rescan")
    if task is not None:
        task.add_done_callback(_lament)
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _lament(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the log is not verified any more", error=f"{type(error).__name__}: {error}", exc_info=error)


def expose_rescan(metrics: Metrics, rescan: Rescan | None) -> None:
    """Have ``metrics`` report on the verifier."""
    if rescan is None:
        return
    metrics.counter("log_verified_entries", "Log entries verified again since the start", lambda: rescan.verified)
    metrics.gauge("log_verified_through", "Entries verified in this round", lambda: rescan.through)
    metrics.counter("log_verify_rounds", "Verifications of the whole log that found no fault", lambda: rescan.rounds)
    metrics.counter("log_verify_failures", "Verifications of the log that found a break", lambda: rescan.failures)
    metrics.counter(
        "log_verify_errors", "Attempts to verify the log, or to tell of it, that failed", lambda: rescan.errors
    )
    metrics.gauge(
        "log_broken_entry",
        "Number of the first bad entry; -1 while none is known",
        lambda: -1.0 if rescan.broken is None else float(rescan.broken.seq),
    )
