"""Runs seeds and tells which ones broke an invariant."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import structlog

from tests.simulation.invariants import violations
from tests.simulation.scenario import make
from tests.simulation.world import World

CHUNK = 25


@dataclass(frozen=True)
class Outcome:
    """What came of one seed."""

    seed: int
    wrong: tuple[str, ...]
    steps: int
    """Tasks of the scenario."""
    passed: int
    """Calls to the planes."""
    kills: int
    trace: str
    """Hash of the ids and times of every entry of the log: what makes two histories the same."""

    def __str__(self) -> str:
        return f"seed {self.seed}: " + "; ".join(self.wrong)


def run_seed(seed: int) -> Outcome:
    """One history; an exception of the product or of the world is a violation too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return asyncio.run(_run(seed))


class InlineExecutor(ThreadPoolExecutor):
    """Work for threads is done at once, so that no real time enters a history."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


async def _run(seed: int) -> Outcome:
    asyncio.get_running_loop().set_default_executor(InlineExecutor(1))
    world = World(seed, make(seed))
    try:
        await world.run()
        await world.take_stock()
        wrong = await violations(world)
    except Exception as error:  # whatever it is, the seed is what is wanted
        last = traceback.extract_tb(error.__traceback__)[-1]
        wrong = [f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})"]
    finally:
        for operator in world.operators:
            operator.kill()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    entries = [(recorded.entry["time"], recorded.entry["id"]) for recorded, _ in world.log.rows[1:]]
    trace = sha256(repr(entries).encode()).hexdigest()
    return Outcome(seed, tuple(wrong), len(world.scenario.steps), world.turnstile.passed, world.kills, trace)


def run_seeds(seeds: Iterable[int], processes: int) -> Iterator[Outcome]:
    """All of them, in order, on several processes."""
    if processes == 1:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK)
