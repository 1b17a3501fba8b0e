"""One operator process: the real reconcilers over an index of its own, fed by watches that the world delivers.

The queue is the world's: which key is taken next, and when a retry is due, is for the seed and the simulated clock.
What is the product's (index, dependents, reconcilers, expressions) is not imitated.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.turnstile import KilledError
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.api.kinds import KINDS
from triplane.controllers.key import Key
from triplane.controllers.registry import Reconcilers
from triplane.errors import Conflict, Fenced, TriplaneError
from triplane.operator.dependents import concerned
from triplane.operator.index import Change, Index
from triplane.operator.settled import settled

if TYPE_CHECKING:
    from tests.simulation.world import World

WORKERS = 3
MOST_FAILURES = 60


class FencedServer:
    """The adapter's habit: the epoch is checked before every write (``adapters/kube``)."""

    def __init__(self, server: Any, log: Any) -> None:
        self._server = server
        self._log = log

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._server, name)
        if name not in ("create", "write_status", "delete", "emit"):
            return found

        async def fenced(*args: Any, **kwargs: Any) -> Any:
            await self._log.check_epoch()
            return await found(*args, **kwargs)

        return fenced


class Operator:
    """Lives from ``start`` until it is killed or fenced."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.over = False
        self.ready = False
        self.due: dict[Key, float] = {}
        self.failures: dict[Key, int] = {}
        self.working: dict[Key, asyncio.Task[None]] = {}
        self.cursors: dict[str, int] = {}
        self.silent: dict[str, float] = {}
        """Kinds whose watch delivers nothing until then."""
        self.log_seen = -1
        self._gone: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.index = Index(self._changed)
        guard = world.turnstile.guard
        log = guard(MemoryEventLog(world.log, writer="operator", now=world.clock.now), number, "log")
        self._log = log
        cluster = FencedServer(guard(world.server, number, "server"), log)
        self.reconcilers = Reconcilers(
            cluster, self.index, log, guard(world.sessions, number, "sessions"), guard(world.graph, number, "graph"),
            guard(world.content, number, "content"), world.principal, world.clock, self.enqueue,
            **world.extras(),
        )  # fmt: skip
        self.starting = asyncio.create_task(self._life(self._start))

    async def _start(self) -> None:
        await self._log.begin_epoch()
        self.log_seen = len(self.world.log.rows) - 1
        for kind in KINDS:
            self.cursors[kind] = len(self.world.server.lines[kind])
            for obj in self.world.server.of(kind):
                self.index.observe(obj)
        await self._insist(self.reconcilers.catch_up)
        for obj in list(self.index.everything()):
            self.enqueue(Key.of(obj), 0.0)
        self.ready = True

    async def _insist(self, attempt: Any) -> None:
        while True:
            try:
                return await attempt()
            except Fenced:
                raise
            except TriplaneError:
                await asyncio.sleep(0)

    async def _life(self, work: Any) -> None:
        """The process ends with the call that kills it, or when it is fenced."""
        try:
            await work()
        except (KilledError, Fenced, asyncio.CancelledError):
            self.kill()

    def kill(self) -> None:
        """Nothing of it happens any more."""
        if self.over:
            return
        self.over = True
        self.world.turnstile.drop(self.number)
        for task in [*self.working.values(), self.starting]:
            if task is not asyncio.current_task():
                task.cancel()

    def enqueue(self, key: Key, delay: float) -> None:
        at = self.world.clock.monotonic() + delay
        self.due[key] = min(self.due.get(key, at), at)

    def _changed(self, change: Change) -> None:
        for key in sorted(concerned(self.index, change), key=str):
            self.enqueue(key, 0.0)
        if change.after is None:
            uid = change.object["metadata"]["uid"]
            self._gone[uid] = (change.kind, change.object)
            self.enqueue(Key("gone", "", uid), 0.0)

    def can_take(self) -> list[Key]:
        """Keys that are due and not at work, while a worker is free."""
        if self.over or not self.ready or len(self.working) >= WORKERS:
            return []
        now = self.world.clock.monotonic()
        return [key for key, at in self.due.items() if at <= now and key not in self.working]

    def take(self, key: Key) -> None:
        del self.due[key]
        self.working[key] = asyncio.create_task(self._life(lambda: self._work(key)))

    async def _work(self, key: Key) -> None:
        try:
            if key.kind == "gone":
                kind, obj = self._gone[key.name]
                await self.reconcilers.gone(kind, obj)
                self._gone.pop(key.name, None)
                again = None
            else:
                again = await self.reconcilers.reconcile(key)
            self.failures.pop(key, None)
            if again is not None:
                self.enqueue(key, max(again, 0.001))
        except Fenced:
            raise
        except TriplaneError as error:
            failures = self.failures[key] = self.failures.get(key, 0) + 1
            if not isinstance(error, Conflict):
                self.world.errors.append(f"{key}: {type(error).__name__}: {error}")
            if failures > MOST_FAILURES:
                raise AssertionError(f"{key} never succeeds: {error}") from error
            self.enqueue(key, min(0.05 * 2 ** min(failures, 8), 10.0))
        finally:
            self.working.pop(key, None)

    # What the world delivers

    def deliver(self, kind: str, *, lose: bool = False, again: int = 0) -> None:
        """The next line of a watch; ``lose``: it never arrives; ``again``: so many old lines are told once more."""
        at = self.cursors[kind]
        lines = self.world.server.lines[kind]
        for line in lines[max(0, at - again) : at]:
            self._line(line.type, line.obj)
        if at < len(lines):
            self.cursors[kind] = at + 1
            if not lose:
                self._line(lines[at].type, lines[at].obj)

    def _line(self, type_: str, obj: dict[str, Any]) -> None:
        if type_ == "DELETED":
            self.index.remove(obj)
        else:
            self.index.observe(obj)

    def behind(self) -> list[str]:
        """Kinds whose watch has lines to deliver."""
        if self.over or not self.ready:
            return []
        now = self.world.clock.monotonic()
        return [
            kind
            for kind, at in self.cursors.items()
            if at < len(self.world.server.lines[kind]) and self.silent.get(kind, 0.0) <= now
        ]

    def sweep(self) -> None:
        """LIST against the index: what watches did not tell."""
        for kind in KINDS:
            known = dict(self.index.versions(kind))
            for obj in self.world.server.of(kind):
                known.pop(obj["metadata"]["uid"], None)
                self.index.observe(obj)
            for obj in known.values():
                self.index.remove(obj)

    def read_log(self) -> None:
        """The consumer and the bell: sessions whose runs moved, sessions that runners ask for."""
        rows = self.world.log.rows
        for recorded, _ in rows[self.log_seen + 1 :]:
            if recorded.entry["type"] in ("run.claimed", "run.started", "run.finished", "run.lost", "run.revoked"):
                subject = recorded.entry["subject"]
                self.enqueue(Key("AgentSession", subject["namespace"], subject["name"]), 0.0)
        self.log_seen = len(rows) - 1

    async def answer_bell(self) -> None:
        for uid in await self.world.sessions.wanted():
            session = self.index.by_uid(uid)
            if session is not None:
                self.enqueue(Key.of(session), 0.0)

    def resync(self, *, unfinished: bool = False) -> None:
        """Look at everything once more, or at what is not settled."""
        for obj in list(self.index.everything()):
            if not (unfinished and settled(self.index, obj, self.reconcilers.has_seen, starting=False)):
                self.enqueue(Key.of(obj), 0.0)
