"""One plan per write to the API server: a learning run records what the operator writes in a Task's life; then each of
these writes is struck before it arrives, after it was applied, and by losing its reply."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tests.e2e.api import Api
from tests.faults.apiproxy import ApiProxy, Call
from tests.faults.installation import Installation
from tests.faults.rules import Action, LoseReply, Strike
from tests.faults.work import Work

Side = Literal["before", "after", "reply lost"]
SIDES: Sequence[Side] = ("before", "after", "reply lost")
CONVERGE_SECONDS = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class WritePlan:
    """The operator's n-th write is struck on one side of it."""

    write: int
    """From 1."""
    side: Side

    def __str__(self) -> str:
        return f"write {self.write}, {self.side}"

    def earlier(self) -> "WritePlan | None":
        """The write before it; None before the first."""
        return replace(self, write=self.write - 1) if self.write > 1 else None


def every_plan(writes: int) -> list[WritePlan]:
    """Each write on each side."""
    return [WritePlan(number, side) for number in range(1, writes + 1) for side in SIDES]


def some_plans(writes: int, seed: int, count: int) -> list[WritePlan]:
    """``count`` of them, the same for the same seed; every side is among them."""
    chance = random.Random(f"triplane write {seed}")
    return [WritePlan(chance.randint(1, writes), SIDES[at % len(SIDES)]) for at in range(count)]


def learn(installation: Installation, api: Api, proxy: ApiProxy) -> list[Call]:
    """What the operator writes from a Task's creation to its success, undisturbed."""
    work = _prepared(installation, api)
    with proxy.rule(_of_the_task(work), Action(), times=None) as recording:
        work.apply()
        work.succeed(CONVERGE_SECONDS)
    return list(recording.struck)


def carry_out(plan: WritePlan, installation: Installation, api: Api, proxy: ApiProxy) -> Call:
    """Strike, and see that in the end nothing of it shows; the call that was struck. Work that got along with fewer
    writes is done again with an earlier one struck. Raises ``AssertionError`` for what is wrong."""
    attempt: WritePlan | None = plan
    while attempt is not None:
        struck = _attempt(attempt, installation, api, proxy)
        if struck:
            return struck[0]
        attempt = attempt.earlier()
    raise AssertionError(f"{plan}: nothing was written")


def _attempt(plan: WritePlan, installation: Installation, api: Api, proxy: ApiProxy) -> list[Call]:
    work = _prepared(installation, api)
    action: Action = LoseReply()
    if plan.side != "reply lost":
        action = Strike(lambda: installation.kill("operator"), applied=plan.side == "after")
    killed_before = len(installation.restarted)
    with proxy.rule(_of_the_task(work), action, first=plan.write) as rule:
        work.apply()
        work.succeed(CONVERGE_SECONDS)
    killed = installation.restarted[killed_before:]
    expected = ["operator"] if rule.struck and plan.side != "reply lost" else []
    assert killed == expected, f"{plan}: {killed} ended, expected {expected}"
    _once(work)
    return rule.struck


def _of_the_task(work: Work) -> Callable[[Call], bool]:
    """Writes for the Task and what it owns; the Graph's roll-up coalesces, now into two writes, now into three."""
    return lambda call: call.writes and call.namespace == work.namespace and call.resource != "graphs/status"


def _prepared(installation: Installation, api: Api) -> Work:
    """A namespace in which the operator has nothing left to write."""
    work = Work(installation, api, f"writes-{next(_numbers)}", 0)
    work.settled()
    return work


def _once(work: Work) -> None:
    """One session of each role, one Artifact, one Review, one acceptance: nothing was made twice."""
    made = {kind: len(work.api.list(kind, work.namespace).json()["items"]) for kind in ("AgentSession", "Artifact")}
    assert made == {"AgentSession": 2, "Artifact": 1}, made
    assert len(work.api.list("Review", work.namespace).json()["items"]) == 1
    types = work.types(work.task()["metadata"]["uid"])
    assert types.count("task.accepted") == 1, types
