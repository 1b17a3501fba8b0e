"""The operator's moving parts, put together: watches, sweep, consumer and leases fill the queue; reconcilers
empty it.

The shell decides nothing about Triplane's objects; it promises the reconcilers that every change reaches them
at least once, in any order, one at a time per object.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from triplane.controllers.key import Key
from triplane.domain.session import SessionView
from triplane.errors import Fenced, TriplaneError
from triplane.operator.consumer import Consumer
from triplane.operator.dependents import concerned, finished
from triplane.operator.handlers import Watcher
from triplane.operator.index import Change, Index, version
from triplane.operator.leases import LeaseObserver
from triplane.operator.queue import Backoff, WorkQueue
from triplane.operator.rewind import HighWater, Rewound
from triplane.operator.sweep import LATE_SECONDS, Sweep, pause
from triplane.ports import Clock, Cluster, EventLog, SessionStore

log = structlog.get_logger(__name__)

START_RETRY_SECONDS = 1.0
SUPERVISE_SECONDS = 2.0
DRAIN_SECONDS = 8.0
SWEEPS_PER_RESYNC = 10
"""Every so many sweeps (about five minutes) all unfinished work is looked at again: what no event woke, time does."""
STUCK_RESTARTS = 3
"""Restarts of the watches in a row that did not help, after which the process calls itself unhealthy."""


FINAL = (Fenced, Rewound)
"""After these the process must end: a newer operator has begun, or the API server went back in time."""


class Reconciler(Protocol):
    """What the controllers offer (``triplane.controllers.registry.Reconcilers``)."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring the world nearer to the object's spec; seconds until it wants to be called again, or None."""
        ...

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        """That incarnation was deleted: end what it started, keep the evidence. Called at least once."""
        ...

    async def catch_up(self) -> None:
        """The mirror is complete: find what was deleted while no operator ran."""
        ...


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
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._reconciler: Reconciler | None = None
        self._gone: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.index = Index(self._changed)
        self.queue: WorkQueue[Key] = WorkQueue(self._reconcile, workers=workers)
        self._gone_queue: WorkQueue[str] = WorkQueue(self._end, workers=2, backoff=Backoff(cap=5.0))
        high_water = HighWater(cluster, stores.sessions, accept_restore=accept_restore)
        self.sweep = Sweep(cluster, self.index, clock, namespace=namespace, high_water=high_water)
        self.watcher = Watcher(kubeconfig, namespace, self._deliver, clock)
        self._consumer = Consumer(stores.log, stores.sessions, self.index, self.enqueue)
        self._leases = LeaseObserver(
            stores.sessions, clock, self._lost, lease_seconds=lease_seconds, path_open=path_open
        )
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
                supervisor = group.create_task(self._supervise())
                parts = await self._start(group, reconciler, stop)
                await stop.wait()
                if parts:
                    await self._wind_down()
                for task in (supervisor, *parts):
                    task.cancel()
        except* FINAL as group_error:
            final = _leaf(group_error)
        finally:
            await self.watcher.stop()
        if final is not None:
            raise final

    async def _start(
        self, group: asyncio.TaskGroup, reconciler: Reconciler, stop: asyncio.Event
    ) -> list[asyncio.Task[None]]:
        """Fill the mirror, then start what works on it; nothing when ``stop`` comes first."""
        if not await _ends_before(self._fill(reconciler), stop):
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
                await self.sweep.once(first=True)
                await reconciler.catch_up()
                log.info("the mirror is filled", objects=len(self.index))
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
        for key in concerned(self.index, change):
            self.queue.add(key)
        if change.after is None:
            uid = change.object["metadata"]["uid"]
            self.sweep.overdue.delivered(uid, 0, gone=True)
            self._note_gone(change.kind, uid, change.object)

    def _note_gone(self, kind: str, uid: str, obj: Mapping[str, Any]) -> None:
        self._gone[uid] = (kind, obj)
        self._gone_queue.add(uid)

    def _lost(self, view: SessionView) -> None:
        self.queue.add(Key("AgentSession", view.offer.namespace, view.offer.name))

    async def _reconcile(self, key: Key) -> float | None:
        assert self._reconciler is not None
        return await self._reconciler.reconcile(key)

    async def _end(self, uid: str) -> None:
        assert self._reconciler is not None
        kind, obj = self._gone[uid]
        await self._reconciler.gone(kind, obj)
        self._gone.pop(uid, None)

    async def _keep_sweeping(self) -> None:
        swept = 0
        while True:
            await asyncio.sleep(pause(self._rng))
            try:
                await self.sweep.once()
            except FINAL:
                raise
            except TriplaneError as error:
                log.warning("the sweep was interrupted", error=str(error))
                continue
            swept += 1
            if self.queue.overflowed:
                self.queue.overflowed = False
                self._enqueue(self.index.everything())
            elif swept % SWEEPS_PER_RESYNC == 0:
                self._enqueue(obj for obj in self.index.everything() if not finished(obj))

    def _enqueue(self, objects: Iterable[Mapping[str, Any]]) -> None:
        for obj in objects:
            self.queue.add(Key.of(obj))

    async def _supervise(self) -> None:
        """Is our epoch the newest, and do the watches deliver?"""
        while True:
            try:
                await self._stores.log.check_epoch()
                self.stores_seen_at = self._clock.monotonic()
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


async def _ends_before(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Run ``work`` unless ``stop`` comes first; True if it ended by itself."""
    doing = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        return False
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


def _leaf(group: BaseExceptionGroup[TriplaneError]) -> TriplaneError:
    """The first exception in a tree of groups."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first
