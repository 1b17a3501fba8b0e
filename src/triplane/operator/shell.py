"""The operator's moving parts, put together: watches, sweep, consumer and leases fill the queue; reconcilers
empty it.

The shell decides nothing about Triplane's objects; it promises the reconcilers that every change reaches them
at least once, in any order, one at a time per object.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from triplane.controllers.key import Key
from triplane.domain.session import LiveRun
from triplane.errors import Fenced, TriplaneError
from triplane.operator.about import about
from triplane.operator.consumer import Consumer
from triplane.operator.dependents import concerned, finished
from triplane.operator.ending import ends_before, leaf
from triplane.operator.handlers import Watcher
from triplane.operator.index import Change, Index, version
from triplane.operator.leases import LeaseObserver
from triplane.operator.logmeter import LogMeter
from triplane.operator.metrics import Metrics
from triplane.operator.queue import Backoff, WorkQueue
from triplane.operator.reconciler import Reconciler
from triplane.operator.rewind import HighWater, Rewound
from triplane.operator.settled import settled
from triplane.operator.sweep import LATE_SECONDS, Sweep, pause
from triplane.ports import Clock, Cluster, EventLog, SessionStore

log = structlog.get_logger(__name__)

START_RETRY_SECONDS = 1.0
SUPERVISE_SECONDS = 2.0
LAG_PROBE_SECONDS = 1.0
DRAIN_SECONDS = 8.0
SWEEPS_PER_RESYNC = 10
"""Every so many sweeps (about five minutes) all unfinished work is looked at again: what no event woke, time does.
Finished work is not: it costs nothing, however much there is."""
STUCK_RESTARTS = 3
"""Restarts of the watches in a row that did not help, after which the process calls itself unhealthy."""


FINAL = (Fenced, Rewound)
"""After these the process must end: a newer operator has begun, or the API server went back in time."""


@dataclass(frozen=True)
class Stores:
    """What the shell reads beside the API server."""

    log: EventLog
    sessions: SessionStore


class Shell:
    """Runs reconcilers over one cluster until told to stop or fenced."""

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        clock: Clock,
        *,
        kubeconfig: Path | None,
        namespace: str | None,
        lease_seconds: float,
        accept_restore: bool = False,
        path_open: Callable[[], Awaitable[bool]] | None = None,
        workers: int = 8,
        metrics: Metrics | None = None,
    ) -> None:
        self._stores = stores
        self._clock = clock
        self.metrics = metrics or Metrics()
        self._reconciler: Reconciler | None = None
        self._filling = True
        self._gone: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.index = Index(self._changed)
        self.queue: WorkQueue[Key] = WorkQueue(
            self._reconcile,
            workers=workers,
            describe=self._describe,
            failed=lambda key, error: self.metrics.will_retry(key.kind),
        )
        self._gone_queue: WorkQueue[str] = WorkQueue(
            self._end,
            workers=2,
            backoff=Backoff(cap=5.0),
            describe=lambda uid: about(*self._gone[uid]) if uid in self._gone else {"uid": uid},
        )
        high_water = HighWater(cluster, stores.sessions, accept_restore=accept_restore)
        self.sweep = Sweep(cluster, self.index, clock, namespace=namespace, high_water=high_water)
        self.watcher = Watcher(kubeconfig, namespace, self._deliver, clock)
        self._consumer = Consumer(stores.log, stores.sessions, self.index, self.enqueue)
        self._leases = LeaseObserver(
            stores.sessions, clock, self._lost, lease_seconds=lease_seconds, path_open=path_open
        )
        self.log_meter = LogMeter(stores.log, clock)
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self.stuck = 0
        """Restarts of the watches in a row that did not help."""
        self._stuck_at = 0.0
        self.stores_seen_at: float | None = None
        """Monotonic time at which the database last confirmed our epoch."""

    def enqueue(self, key: Key, delay: float = 0.0) -> None:
        """Have ``key`` reconciled, after ``delay`` seconds."""
        self.queue.add(key, delay)

    async def run(self, reconciler: Reconciler, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what is at work. Raises ``Fenced`` or ``Rewound``, after
        which going on would do harm."""
        self._reconciler = reconciler
        final: TriplaneError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                watching = [group.create_task(self._supervise()), group.create_task(self._measure_lag())]
                parts = await self._start(group, reconciler, stop)
                await stop.wait()
                if parts:
                    await self._wind_down()
                for task in (*watching, *parts):
                    task.cancel()
        except* FINAL as group_error:
            final = leaf(group_error)
        finally:
            await self.watcher.stop()
        if final is not None:
            raise final

    async def _start(
        self, group: asyncio.TaskGroup, reconciler: Reconciler, stop: asyncio.Event
    ) -> list[asyncio.Task[None]]:
        """Fill the mirror, then start what works on it; nothing when ``stop`` comes first."""
        if not await ends_before(self._fill(reconciler), stop):
            return []
        self.watcher.start()
        parts = (
            self.queue.run(),
            self._gone_queue.run(),
            self._consumer.run(),
            self._leases.run(),
            self._keep_sweeping(),
        )
        return [group.create_task(part) for part in parts]

    async def _wind_down(self) -> None:
        log.info("stopping", running=self.queue.running)
        drained = await asyncio.gather(self.queue.drain(DRAIN_SECONDS), self._gone_queue.drain(DRAIN_SECONDS))
        if not all(drained):
            log.warning("work was cut short; the next operator takes it up", running=self.queue.running)

    async def _fill(self, reconciler: Reconciler) -> None:
        """First sweep, and what happened while no operator ran; insists until the stores and the server
        answer."""
        while True:
            try:
                await self._sweep(first=True)
                await reconciler.catch_up()
                self._filling = False
                self._look_at_unsettled(starting=True)
                log.info("the mirror is filled", objects=len(self.index), to_look_at=self.queue.depth)
                return
            except FINAL:
                raise
            except TriplaneError as error:
                log.warning("cannot start yet; trying again", error=str(error))
                await asyncio.sleep(START_RETRY_SECONDS)

    def _deliver(self, event: str | None, obj: Mapping[str, Any]) -> None:
        gone = event == "DELETED"
        self.sweep.overdue.delivered(obj["metadata"]["uid"], version(obj), gone=gone)
        if gone:
            self.index.remove(obj)
        else:
            self.index.observe(obj)

    def _changed(self, change: Change) -> None:
        if not self._filling:  # afterwards everything that is not settled is looked at anyway
            for key in concerned(self.index, change):
                self.queue.add(key)
        if change.after is None:
            uid = change.object["metadata"]["uid"]
            self.sweep.overdue.delivered(uid, 0, gone=True)
            self._note_gone(change.kind, uid, change.object)

    def _note_gone(self, kind: str, uid: str, obj: Mapping[str, Any]) -> None:
        self._gone[uid] = (kind, obj)
        self._gone_queue.add(uid)

    def _lost(self, run: LiveRun) -> None:
        self.queue.add(Key("AgentSession", run.namespace, run.name))

    async def _reconcile(self, key: Key) -> float | None:
        assert self._reconciler is not None
        began = self._clock.monotonic()
        error: BaseException | None = None
        try:
            return await self._reconciler.reconcile(key)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.metrics.reconciled(key.kind, self._clock.monotonic() - began, error)

    def _describe(self, key: Key) -> Mapping[str, object]:
        obj = self.index.get(key.kind, key.namespace, key.name)
        if obj is None:
            return {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        return about(key.kind, obj)

    async def _end(self, uid: str) -> None:
        assert self._reconciler is not None
        if uid in self._gone:
            kind, obj = self._gone[uid]
            await self._reconciler.gone(kind, obj)
            self._gone.pop(uid, None)

    async def _keep_sweeping(self) -> None:
        swept = 0
        while True:
            await asyncio.sleep(pause(self._rng, self.sweep.took))
            try:
                await self._sweep()
                assert self._reconciler is not None
                await self._reconciler.project()
            except FINAL:
                raise
            except TriplaneError as error:
                log.warning("the sweep was interrupted", error=str(error))
                continue
            swept += 1
            if self.queue.overflowed:
                self.queue.overflowed = False
                self._look_at_unsettled(starting=True)
            elif swept % SWEEPS_PER_RESYNC == 0:
                self._look_at_unsettled(starting=False)

    async def _sweep(self, *, first: bool = False) -> None:
        repaired = await self.sweep.once(first=first)
        self.metrics.swept(self.sweep.took, 0 if first else repaired)

    def _look_at_unsettled(self, *, starting: bool) -> None:
        """Enqueue everything that may need work; what is finished already stands behind the rest."""
        assert self._reconciler is not None
        for obj in self.index.everything():
            if not settled(self.index, obj, self._reconciler.has_seen, starting=starting):
                self.queue.add(Key.of(obj), behind=finished(obj))

    async def _measure_lag(self) -> None:
        while True:
            asked = self._clock.monotonic()
            await asyncio.sleep(LAG_PROBE_SECONDS)
            self.metrics.loop_late(max(0.0, self._clock.monotonic() - asked - LAG_PROBE_SECONDS))

    async def _supervise(self) -> None:
        """Is our epoch the newest, and do the watches deliver?"""
        while True:
            try:
                await self._stores.log.check_epoch()
                self.stores_seen_at = self._clock.monotonic()
                await self.log_meter.look(self._consumer.seen)
            except FINAL:
                raise
            except TriplaneError as error:
                log.warning("the database does not answer", error=str(error))
            self._check_watches(self._clock.monotonic())
            await asyncio.sleep(SUPERVISE_SECONDS)

    def _check_watches(self, now: float) -> None:
        if late := self.sweep.overdue.stuck(now):
            self.stuck += 1
            self._stuck_at = now
            self.sweep.overdue.clear()
            self.watcher.restart(f"no delivery of {', '.join(sorted(late))} that a LIST shows")
            return
        # A sweep after the restart whose findings were all delivered in time: the restart has helped.
        swept = self.sweep.completed_at
        if self.stuck and swept is not None and swept > self._stuck_at and now - swept > LATE_SECONDS:
            self.stuck = 0
