"""Keeps the content store while the gateway runs: collects what nothing names, reads everything again, ends erasures.

Each is done by one process at a time, however many gateways there are: the store's own leases see to that. What fails
is logged and tried again at the next turn; nothing here is in the way of a request.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from triplane.controllers.collect import LEASE_SECONDS, Collected, Collector
from triplane.controllers.erase import end_erasures
from triplane.controllers.quarantine import report_quarantined
from triplane.controllers.scrub import scrub
from triplane.domain.collection import Rules
from triplane.domain.scrubbing import Pace, Scrubbed
from triplane.errors import Conflict, TriplaneError
from triplane.gateway.config import GatewayConfig
from triplane.gateway.metrics import GatewayMetrics
from triplane.ports import Clock, CollectorLease
from triplane.wiring import GatewayBackends

_log = structlog.get_logger()
_RETRY_SECONDS: Final = 60.0
"""Least time between two tries of what failed, and from the start to the first."""


class Keeper:
    """The content store's upkeep in one gateway. Give it the store itself, not a view of it for the routes."""

    def __init__(self, backends: GatewayBackends, config: GatewayConfig, clock: Clock, metrics: GatewayMetrics) -> None:
        self._backends = backends
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._collector = self._collector_by(config.collection)

    def _collector_by(self, rules: Rules) -> Collector:
        return Collector(
            self._backends.content, self._backends.log, self._backends.sessions, self._backends.graph, rules
        )

    async def run(self) -> None:
        """Collect and scrub by the settings' intervals until cancelled; what is switched off is left out. First log
        what lies in quarantine and is not logged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._catch_up())
            if self._config.collect_seconds:
                group.create_task(self._repeatedly(self.collect, self._config.collect_seconds, "collection"))
            if self._config.scrub_seconds:
                group.create_task(self._repeatedly(self.scrub, self._config.scrub_seconds, "scrub"))

    async def _catch_up(self) -> None:
        while True:
            try:
                await self._report_quarantined()
            except TriplaneError as error:
                _log.warning("what lies in quarantine could not be logged", error=str(error))
            else:
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _report_quarantined(self) -> tuple[str, ...]:
        found = await report_quarantined(self._backends.content, self._backends.log)
        for digest in found:
            self._metrics.quarantined()
            _log.error("a blob was moved to quarantine, which nobody had logged: it is logged now", digest=digest)
        return found

    async def _repeatedly(self, work: Callable[[], Awaitable[object]], seconds: float, name: str) -> None:
        """The first time soon, or a gateway that is often restarted would never come to it."""
        pause = min(seconds, _RETRY_SECONDS)
        while True:
            await asyncio.sleep(pause)
            began = self._clock.monotonic()
            try:
                await work()
            except Conflict as error:
                _log.info(f"{name} left to another", reason=str(error))
            except TriplaneError as error:
                _log.warning(f"{name} failed", error=str(error))
            except Exception:
                _log.exception(f"{name} failed unexpectedly")
            pause = max(seconds - (self._clock.monotonic() - began), min(seconds, _RETRY_SECONDS))

    async def collect(self, *, dry: bool = False) -> Collected:
        """One collection, and the end of erasures that a crash broke off. Raises as ``Collector.run``."""
        try:
            if not dry:
                ended = await end_erasures(self._backends.content, self._backends.log, self._backends.sessions)
                if ended:
                    _log.warning("erasures ended that were broken off", blobs=ended)
            done = await self._collector.run(dry=dry)
        except Conflict:
            self._metrics.collected("busy")
            raise
        except TriplaneError:
            self._metrics.collected("failed")
            raise
        if not dry:
            self._metrics.collected("refused" if done.refused else "done", done.removed, done.octets)
            _log.info(
                "collection ended",
                seen=done.seen,
                condemned=done.condemned,
                removed=done.removed,
                octets=done.octets,
                tidied=done.tidied,
                refused=done.refused,
            )
        return done

    async def scrub(self) -> Scrubbed:
        """Read everything once, beginning anywhere: digests are spread evenly, so of many scrubs that restarts broke
        off none looks at the same part only. What lies in quarantine without an entry is logged, and counts as found.
        Raises ``Conflict`` when another gateway scrubs, ``Fenced`` when one has
        taken over, ``Unavailable``."""
        content, pace = self._backends.content, Pace(self._config.scrub_octets_per_second)
        first = f"sha256:{secrets.token_hex(32)}"
        async with content.lease(LEASE_SECONDS, "scrubber") as lease:
            renewing = asyncio.create_task(_renewed(lease))

            def seen(octets: int) -> None:
                self._metrics.scrubbed(octets)
                if renewing.done():
                    renewing.result()  # raises: another gateway has taken over

            try:
                late = await self._report_quarantined()
                _log.info("scrub begins", octets_per_second=self._config.scrub_octets_per_second)
                upper = await scrub(content, pace, self._clock, after=first, seen=seen)
                lower = await scrub(content, pace, self._clock, until=first, seen=seen)
            finally:
                renewing.cancel()
                await asyncio.wait({renewing})
        found = upper.and_then(lower)
        found = replace(found, bad=tuple(dict.fromkeys((*late, *found.bad))))
        self._metrics.scrub_ended(len(found.bad), len(found.unreadable))
        report = _log.info if found.ok else _log.error
        report(
            "scrub ended",
            checked=found.checked,
            octets=found.octets,
            bad=list(found.bad),
            unreadable=list(found.unreadable),
        )
        return found


async def _renewed(lease: CollectorLease) -> None:
    """Keep it, for ever. Raises ``Fenced`` when another gateway has it."""
    while True:
        await asyncio.sleep(LEASE_SECONDS / 3)
        await lease.renew()
