"""Spending beyond a budget: by children, by saying less than before, by saying it last, by not dying.

What a harness says of its own tokens is its word; that limit is told in docs/reference/enforcement.md, and the last
test here shows it. Everything else is the host's own count.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.session.processes import running, until
from tests.integration.session.world import Done, World, make_world

from triplane.domain.session import Usage
from triplane.session import host
from triplane.session.budget import Meter

pytestmark = pytest.mark.attacks


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "home")
    async with made.serving():
        yield made


def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weakened check: the host counts and does not mind."""
    monkeypatch.setattr(host, "Meter", lambda budget: Meter({}))


def spent(done: Done) -> tuple[str, str]:
    assert done.ending == ("failed", "BudgetExceeded"), done.message
    axis, _, rest = done.message.partition(" is spent: ")
    return axis, rest.partition(" were left")[0]


async def test_a_run_is_killed_as_soon_as_its_tokens_are_spent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
    import time
    for number in range(1, 30):
        say(type="usage", inputTokens=number * 100, outputTokens=number * 50); sys.stdout.flush()
        time.sleep(0.02)
    leave(); reflect()
    """
    with monkeypatch.context() as weakened:
        unlimited(weakened)
        careless = await world.carry_out(program, budget={"tokens": 1000})
        assert careless.ending == ("succeeded", "Completed")
        assert careless.run.result is not None
        assert careless.run.result.usage.tokens == 29 * 150
    done = await world.carry_out(program, budget={"tokens": 1000})
    assert spent(done) == ("budget.tokens", "1050 used, 1000")
    assert done.run.result is not None
    assert done.run.result.usage == Usage(700, 350, 0)
    assert done.reflection is not None
    assert done.reflection["source"] == "host"


async def test_spending_exactly_what_is_left_is_within_it(world: World) -> None:
    program = "say(type='usage', inputTokens=600, outputTokens=400, costMinorUnits=7); leave(); reflect()"
    done = await world.carry_out(program, budget={"tokens": 1000, "costMinorUnits": 7, "wallClockSeconds": 60})
    assert done.ending == ("succeeded", "Completed"), done.message


async def test_saying_it_with_the_last_breath_does_not_help(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "leave(); reflect(); say(type='usage', costMinorUnits=8)"
    with monkeypatch.context() as weakened:
        unlimited(weakened)
        assert (await world.carry_out(program, budget={"costMinorUnits": 7})).ending == ("succeeded", "Completed")
    assert spent(await world.carry_out(program, budget={"costMinorUnits": 7})) == (
        "budget.costMinorUnits",
        "8 used, 7",
    )


async def test_saying_less_than_before_does_not_help(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumption is cumulative: the highest of what was said counts, amount by amount."""
    program = """
    say(type="usage", inputTokens=600)
    say(type="usage", inputTokens=0, outputTokens=500)
    say(type="usage")
    leave(); reflect()
    """
    with monkeypatch.context() as weakened:
        weakened.setattr(Meter, "reported", lambda self, usage: setattr(self, "_reported", usage))
        assert (await world.carry_out(program, budget={"tokens": 1000})).ending == ("succeeded", "Completed")
    assert spent(await world.carry_out(program, budget={"tokens": 1000})) == ("budget.tokens", "1100 used, 1000")


DAEMONS = """
import signal, time
mark = sys.argv[1]
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.execv("/bin/sh", ["/bin/sh", "-c", "while :; do sleep 1; done # " + mark])
print("up", flush=True)
"""


@pytest.mark.parametrize(
    ("program", "budget", "axis"),
    [
        pytest.param("time.sleep(600)", {"wallClockSeconds": 2}, "budget.wallClockSeconds", id="time"),
        pytest.param(
            "time.sleep(1.5); say(type='usage', inputTokens=9); sys.stdout.flush(); time.sleep(600)",
            {"tokens": 8},
            "budget.tokens",
            id="tokens",
        ),
        pytest.param(
            "say(type='usage', costMinorUnits=9); sys.stdout.close(); os.close(1); time.sleep(600)",
            {"wallClockSeconds": 2, "costMinorUnits": 100},
            "budget.wallClockSeconds",
            id="time, of a program nobody hears any more",
        ),
    ],
)
async def test_children_die_with_it_whatever_they_ignore(
    world: World, program: str, budget: dict[str, int], axis: str
) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    harness = {"program": "agent.py", "interpreter": "python3", "args": [mark], "env": []}
    world.program(DAEMONS + program)
    hosting = asyncio.create_task(world.carry_out(harness=harness, budget=budget))
    await until(lambda: len(running(mark)) >= 3)
    done = await hosting
    assert spent(done)[0] == axis
    assert running(mark) == []


async def test_a_program_that_ends_first_leaves_no_child_to_go_on(world: World) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    harness = {"program": "agent.py", "interpreter": "python3", "args": [mark], "env": []}
    world.program(DAEMONS + "time.sleep(0.5); leave(); reflect()")
    hosting = asyncio.create_task(world.carry_out(harness=harness, budget={"wallClockSeconds": 60}))
    await until(lambda: len(running(mark)) >= 3)
    assert (await hosting).ending == ("succeeded", "Completed")
    assert running(mark) == []


async def test_being_asked_once_more_starts_no_new_clock(world: World) -> None:
    """A program without a reflection is started again; time and tokens go on from where they were."""
    program = """
    import time
    say(type="usage", inputTokens=6 if os.environ.get("TRIPLANE_ASK") else 5)
    sys.stdout.flush()
    leave() if not os.environ.get("TRIPLANE_ASK") else time.sleep(600)
    """
    done = await world.carry_out(program, budget={"wallClockSeconds": 3, "tokens": 100})
    assert spent(done)[0] == "budget.wallClockSeconds"


async def test_what_is_spent_is_told_while_the_run_goes_on(world: World) -> None:
    """So that a run whose runner dies has still spent it."""
    world.program("import time; say(type='usage', inputTokens=41, costMinorUnits=3); print(flush=True); time.sleep(30)")
    hosting = asyncio.create_task(world.carry_out(timeoutSeconds=20))
    try:
        told: Any = None
        async with asyncio.timeout(15):
            while told != Usage(41, 0, 3):
                await asyncio.sleep(0.1)
                view = await world.backends.sessions.get("00000000-0000-4000-8000-000000000001")
                told = view.runs[0].usage if view is not None and view.runs else None
        found = (await world.backends.sessions.spent(["task-uid"]))["task-uid"]
        assert (found.tokens, found.cost_minor_units) == (41, 3)
    finally:
        hosting.cancel()
        await asyncio.gather(hosting, return_exceptions=True)


async def test_tokens_nobody_speaks_of_are_not_counted(world: World) -> None:
    """The documented limit: they are self-reported. Time still is not."""
    quiet = await world.carry_out("leave(); reflect()", budget={"tokens": 1})
    assert quiet.ending == ("succeeded", "Completed")
