"""The simulated world: one seed, one history.

Each step does one of the things that could happen now, chosen by the seed: a call passes, a key is taken, a watch
line arrives (or is lost, or old ones come again), a runner moves, a user acts, a process is killed or left behind,
time passes. After the scenario's faults are used up it runs on until nothing happens any more.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tests.simulation.apiserver import ApiServer
from tests.simulation.clock import BEGIN, SimulatedClock
from tests.simulation.conditions import InlineExpressions, inline_policies
from tests.simulation.contents import InlineContracts
from tests.simulation.process import Operator
from tests.simulation.runners import Runners
from tests.simulation.scenario import Scenario
from tests.simulation.turnstile import Turnstile
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.memory.signingkeys import MemorySigningKeys
from triplane.domain.session import SessionView

MOST_STEPS = 15_000
SETTLE_TURNS = 6
"""Turns of the event loop in which any task gets as far as its next call."""
QUIET_SECONDS = 130.0
"""So long nothing may be written by anybody before the history counts as over."""
LONGEST_JUMP = 30.0
SWEEP_SECONDS = 30.0
RESYNC_SECONDS = 100.0
"""How often the operator looks at unfinished work unasked (``operator/shell``: five minutes)."""

Option = tuple[float, Callable[[], Any]]


class StuckError(AssertionError):
    """The history never comes to rest."""


class World:
    """Everything that outlives an operator, and whoever acts on it."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.rng = random.Random(f"history-{seed}")
        self.scenario = scenario
        self.clock = SimulatedClock()
        self.server = ApiServer()
        self.turnstile = Turnstile()
        self.log = MemoryLog.create(now=self.clock.now())
        self.graph = MemoryGraphStore()
        self.sessions = MemorySessionStore(self.clock, **scenario.store_settings)
        self.content = MemoryContentStore()
        self.runners = Runners(self)
        self.errors: list[str] = []
        self.operators: list[Operator] = []
        self.script = list(scenario.script)
        self.interference = list(scenario.interference)
        self.faults = scenario.faults
        self.kills = 0
        self.overlaps: list[str] = []
        self.overruns: list[str] = []
        self.untold_once: set[tuple[str, int]] = set()
        """Runs of which the gateway left something out of the log at first."""
        self.seen_sessions: dict[str, dict[str, Any]] = {}
        self.sessions_now: Mapping[str, SessionView] = {}
        self._sessions_noted = 0
        self._versions: list[tuple[float, int]] = [(0.0, 0)]
        self._sweep_at = SWEEP_SECONDS
        self._resync_at = RESYNC_SECONDS
        self._moved_at = 0.0
        self._mark: tuple[int, ...] = ()

    @staticmethod
    async def principal(username: str, uid: str) -> str:
        return f"p-{username}"

    @staticmethod
    def begin(seconds: float) -> datetime:
        """The wall-clock time of a moment of the history."""
        return BEGIN + timedelta(seconds=seconds)

    def version_at(self, seconds: float) -> int:
        """The server's version as it was at that moment."""
        return max((version for at, version in self._versions if at < seconds), default=0)

    def note(self) -> None:
        """Keep what checks will ask for: when which version was reached, and every session object there ever was."""
        if self._versions[-1][1] != self.server.version:
            self._versions.append((self.clock.monotonic(), self.server.version))
            for line in self.server.lines["AgentSession"][self._sessions_noted :]:
                self.seen_sessions[line.obj["metadata"]["uid"]] = line.obj
            self._sessions_noted = len(self.server.lines["AgentSession"])

    async def take_stock(self) -> None:
        """Read what the checks need from the stores."""
        self.note()
        self.sessions_now = await self.sessions.get_many(list(self.seen_sessions))

    def extras(self) -> dict[str, Any]:
        """Further ports of the reconcilers."""
        return {
            "expressions": InlineExpressions(),
            "policies": inline_policies(),
            "contracts": InlineContracts(self.content),
            "keys": MemorySigningKeys(),
        }

    async def run(self) -> None:
        """The whole history, then one full look at everything that must change nothing."""
        self._begin()
        await self._until_quiet()
        before = self.marks()
        self.current.sweep()
        self.current.resync()
        await self._until_quiet()
        assert self.marks() == before, f"looking at everything once more wrote {self._written_since(before)}"
        self.current.kill()

    def _written_since(self, marks: tuple[int, ...]) -> str:
        """What is new, for the message."""
        version, size = marks
        logged = [recorded.entry["id"] for recorded, _ in self.log.rows[size:]]
        written = [
            f"{kind} {line.obj['metadata']['name']} {(line.obj.get('status') or {}).get('state')}"
            for kind, lines in self.server.lines.items()
            for line in lines
            if int(line.obj["metadata"]["resourceVersion"]) > version
        ]
        return ", ".join([*logged, *written])

    @property
    def current(self) -> Operator:
        return self.operators[-1]

    def marks(self) -> tuple[int, ...]:
        """Grows with every write of any plane."""
        return self.server.version, len(self.log.rows)

    def _begin(self) -> None:
        self.operators.append(Operator(self, len(self.operators)))

    async def _until_quiet(self) -> None:
        self._moved_at, self._mark = self.clock.monotonic(), self.marks()
        for _ in range(MOST_STEPS):
            if self.current.over:
                self._begin()
                await self._settle()
                continue
            for task in [item.starting for item in self.operators]:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    raise task.exception()  # type: ignore[misc]
            options = self._options()
            if not options:
                if not self._pass_time():
                    return
                continue
            weights = [weight for weight, _ in options]
            _, act = self.rng.choices(options, weights)[0]
            done = act()
            if isinstance(done, Awaitable):
                await done
            await self._settle()
        raise StuckError(f"no rest after {MOST_STEPS} steps; last errors: {self.errors[-5:]}")

    async def _settle(self) -> None:
        """Let every task run until it waits at the turnstile or is done."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        for operator in self.operators:
            for key, task in list(operator.working.items()):
                if task.done():
                    operator.working.pop(key, None)
                    if not task.cancelled() and (error := task.exception()) is not None:
                        raise error

    def _options(self) -> list[Option]:
        options: list[Option] = [(4.0, lambda chosen=waiting: self._let_pass(chosen)) for waiting in self.turnstile.row]
        for operator in self.operators:
            keys = operator.can_take()
            if keys:
                options.append((3.0, lambda o=operator, k=keys: o.take(self.rng.choice(k))))
            options += [(1.0, lambda o=operator, k=kind: self._deliver(o, k)) for kind in operator.behind()]
            if operator.ready and not operator.over and operator.log_seen < len(self.log.rows) - 1:
                options.append((1.0, operator.read_log))
        if self.script:
            options.append((0.5, lambda: self.script.pop(0)(self.server)))
        elif self.interference and self.rng.random() < 0.1:
            options.append((0.3, self._interfere))
        options += self.runners.options()
        if self.rng.random() < 0.3:
            options.append((0.3, self.server.collect))
        if self.rng.random() < 0.2 and self.faults > 0 and options:
            options.append((0.15, self._fault))
        if self.rng.random() < 0.1 and options:
            options.append((0.2, lambda: self.clock.advance(self.rng.choice([0.1, 1.0, 4.0]))))
        return options

    def _let_pass(self, waiting: Any) -> None:
        self.note()
        self.turnstile.row.remove(waiting)
        self.turnstile.passed += 1
        if not waiting.turn.done():
            waiting.turn.set_result("go")

    def _deliver(self, operator: Operator, kind: str) -> None:
        chance = self.rng.random() if self.scenario.faulty_watches else 0.5
        if chance > 0.95:  # this watch is silent for a while
            operator.silent[kind] = self.clock.monotonic() + self.rng.choice([2.0, 12.0, 20.0])
            return
        operator.deliver(kind, lose=chance < 0.05, again=self.rng.randint(1, 6) if 0.05 <= chance < 0.1 else 0)

    def _interfere(self) -> None:
        self.interference.pop(0)(self.server)
        now = self.clock.monotonic()
        for kind, seconds in self.server.silenced.items():
            for operator in self.operators:
                operator.silent[kind] = now + seconds
        self.server.silenced.clear()

    def _fault(self) -> None:
        """A kill before or after the effect of a call, or a predecessor that is left behind and goes on."""
        self.faults -= 1
        self.kills += 1
        waiting = [item for item in self.turnstile.row if item.process == self.current.number]
        chance = self.rng.random()
        if chance < 0.15:
            self._begin()  # the old one was only paused
        elif waiting and chance < 0.9:
            chosen = self.rng.choice(waiting)
            self.turnstile.row.remove(chosen)
            chosen.turn.set_result(self.rng.choice(["killed before", "killed after"]))
        else:
            self.current.kill()

    def _pass_time(self) -> bool:
        """Nothing can happen now: on to when something may. False when it has been quiet for long enough."""
        while self.server.collect():
            pass
        now = self.clock.monotonic()
        if self.marks() != self._mark:
            self._moved_at, self._mark = now, self.marks()
        if now - self._moved_at > QUIET_SECONDS and not self.script and not self.interference:
            return False
        due = [at for at in self.current.due.values() if at > now]
        due += [at for at in self.runners.due() if at > now]
        step = min([at - now for at in due] + [LONGEST_JUMP])
        self.clock.advance(max(step, 0.001))
        if self.clock.monotonic() >= self._resync_at:
            self._resync_at = self.clock.monotonic() + RESYNC_SECONDS
            self.current.resync(unfinished=True)
        if self.clock.monotonic() >= self._sweep_at:
            self._sweep_at = self.clock.monotonic() + SWEEP_SECONDS
            self.current.sweep()
        return True
