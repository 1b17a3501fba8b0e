"""Simulated runners and gateway: they claim, start, renew, finish, vanish, and sometimes fail to log it at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.scenario import WORKERS
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.audit.digest import canonical_json
from triplane.domain import events
from triplane.domain.session import LIVE_RUN_STATES, Claim, Outcome, RunOutput, RunResult, Usage
from triplane.errors import TriplaneError

if TYPE_CHECKING:
    from tests.simulation.world import World

SLOTS = 3
IDLE_SECONDS = 1.0
MOST_IDLE_SECONDS = 20.0
"""A real runner asks more often; while nothing at all happens, that would only be more of the same."""
RUN_SECONDS = (0.2, 1.0, 3.0)


@dataclass
class AtWork:
    """A run in a slot."""

    claim: Claim
    started: bool
    until: float


class Runners:
    """One runner with a few slots, and the gateway before the stores."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._log = MemoryEventLog(world.log, writer="gateway", now=world.clock.now)
        self._opened = False
        self._next_ask = 0.0
        self._idle = 0
        self._log_size = 0
        self._untold: list[tuple[float, Claim]] = []
        self.at_work: list[AtWork] = []
        self.claimed: list[tuple[Claim, int, int, float]] = []
        """(claim, log size, server version, time) at every claim."""

    def options(self) -> list[tuple[float, Callable[[], Any]]]:
        now = self._world.clock.monotonic()
        found: list[tuple[float, Callable[[], Any]]] = []
        if len(self.at_work) < SLOTS and now >= self._next_ask:
            found.append((1.0, self._claim))
        if self._untold and self._untold[0][0] <= now:
            found.append((1.0, self._tell_again))
        for item in self.at_work:
            if not item.started:
                found.append((1.0, lambda chosen=item: self._start(chosen)))
            elif now >= item.until:
                found.append((1.0, lambda chosen=item: self._finish(chosen)))
        return found

    def due(self) -> list[float]:
        """When something will be possible."""
        times = [item.until for item in self.at_work if item.started]
        times += [at for at, _ in self._untold]
        if len(self.at_work) < SLOTS:
            times.append(self._next_ask)
        return times

    async def _claim(self) -> None:
        world = self._world
        if not self._opened:
            await self._log.begin_epoch()
            self._opened = True
        claim = await world.sessions.claim("runner", "instance")
        await world.current.answer_bell()
        if claim is None:
            self._idle = 0 if self._log_size != len(world.log.rows) else self._idle + 1
            self._log_size = len(world.log.rows)
            self._next_ask = world.clock.monotonic() + min(IDLE_SECONDS * 2**self._idle, MOST_IDLE_SECONDS)
            return
        self.claimed.append((claim, len(world.log.rows), world.server.version, world.clock.monotonic()))
        await self._check_live(claim)
        until = world.clock.monotonic() + world.rng.choice(RUN_SECONDS)
        self.at_work.append(AtWork(claim, started=False, until=until))
        await self._tell(claim)

    async def _start(self, item: AtWork) -> None:
        item.started = True
        try:
            await self._world.sessions.start(item.claim.session_uid, item.claim.run, {"isolated": True})
        except TriplaneError:
            self.at_work.remove(item)  # revoked or lost meanwhile
            return
        await self._tell(item.claim)

    async def _finish(self, item: AtWork) -> None:
        self.at_work.remove(item)
        world, claim = self._world, item.claim
        behaviour = world.scenario.behaviour(claim)
        try:
            if behaviour == "lost":
                view = await world.sessions.get(claim.session_uid)
                assert view is not None
                assert view.last_run is not None
                await world.sessions.lose(
                    claim.session_uid, claim.run, counter=view.last_run.counter, reason="LeaseExpired: simulated"
                )
            else:
                await world.sessions.finish(claim.session_uid, claim.run, await self._result(claim, behaviour))
        except TriplaneError:
            return  # revoked or lost: nobody wants the result
        await self._tell(claim)

    async def _tell(self, claim: Claim) -> None:
        """The gateway's entries. One in ten is left out: it died between the store and the log, and the runner asks
        again a little later, or has died too; then it is for the operator to complete the log."""
        if self._world.rng.random() < 0.1:
            self._world.untold_once.add((claim.session_uid, claim.run))
            if self._world.rng.random() < 0.8:
                self._untold.append((self._world.clock.monotonic() + 1.0, claim))
            return
        view = await self._world.sessions.get(claim.session_uid)
        assert view is not None
        run = next(item for item in view.runs if item.run == claim.run)
        recorded = await self._log.get_many([body.id for body in events.run_history(view, run)])
        await self._log.append([body for body in events.run_history(view, run) if body.id not in recorded])

    async def _tell_again(self) -> None:
        _, claim = self._untold.pop(0)
        await self._tell(claim)

    async def _result(self, claim: Claim, behaviour: str) -> RunResult:
        usage = Usage(10, 5, 1)
        if behaviour in ("fail", "timeout", "refused"):
            outcome, reason = {
                "fail": (Outcome.FAILED, "HarnessFailed"),
                "timeout": (Outcome.TIMED_OUT, "TimedOut"),
                "refused": (Outcome.REFUSED, "ProgramNotApproved"),
            }[behaviour]
            return RunResult(outcome, reason, behaviour, usage=usage)
        if claim.role == "producer":
            outputs = tuple(
                [
                    await self._output(item["name"], self._world.scenario.product(claim))
                    for item in claim.work_order["outputs"]
                ]
            )
        else:
            outputs = (await self._output("verdict", self._verdict(claim, behaviour)),)
        return RunResult(Outcome.SUCCEEDED, "Completed", "", outputs, usage=usage)

    @staticmethod
    def _verdict(claim: Claim, behaviour: str) -> dict[str, Any]:
        subjects = [{"name": item["name"], "digest": item["digest"]} for item in claim.work_order["review"]["subjects"]]
        if behaviour == "void":
            subjects[0]["digest"] = "sha256:" + "0" * 64
        rejects = behaviour == "reject"
        return {
            "verdict": "Reject" if rejects else "Approve",
            "findings": ["not good enough"] if rejects else [],
            "subjects": subjects,
        }

    async def _output(self, name: str, document: Any) -> RunOutput:
        octets = canonical_json(document)
        return RunOutput(name, f"{name}.json", await self._world.content.store(octets), "application/json", len(octets))

    async def _check_live(self, claim: Claim) -> None:
        """Right after a claim: is anything else of the Task at work, and does the Agent's limit hold?"""
        world = self._world
        world.note()
        live = [
            view.offer
            for view in (await world.sessions.get_many(list(world.seen_sessions))).values()
            if any(run.state in LIVE_RUN_STATES for run in view.runs)
        ]
        same = [o.name for o in live if (o.task_uid, o.role) == (claim.task_uid, claim.role)]
        twice = [o.name for o in live if (o.task_uid, o.role, o.agent_uid) == (
            claim.task_uid, claim.role, claim.agent_uid)]  # fmt: skip
        step = world.scenario.step_of(claim.work_order["task"]["name"])
        if len(same) > (step.reviewers if claim.role == "reviewer" else 1) or len(twice) > 1:
            world.overlaps.append(f"{' and '.join(same)} are at work at once")
        limit = world.scenario.agent_limit
        of_agent = [offer.name for offer in live if offer.agent_uid == claim.agent_uid]
        if limit is not None and claim.agent_name in dict(WORKERS) and len(of_agent) > limit:
            world.overruns.append(f"{claim.agent_name} has {len(of_agent)} live runs, its limit is {limit}")
