"""Whatever a harness starts ends with its run: daemons, new sessions, processes that ignore every signal."""

import asyncio
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
from tests.integration.session.processes import running, until
from tests.integration.session.world import RUNNER_TOKEN, World

from triplane.session.client import Gateway, RunGateway
from triplane.session.host import host_run
from triplane.session.isolation import Isolation

DAEMON = """
import signal, subprocess, time
def daemon(mark):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            os.execv("/bin/sh", ["/bin/sh", "-c", "while :; do sleep 1; done # " + mark])
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


async def test_a_daemon_does_not_outlive_a_finished_run(world: World, mark: str) -> None:
    world.program(DAEMON + f"daemon('{mark}'); time.sleep(1); leave(); reflect()")
    hosting = asyncio.create_task(world.carry_out())
    daemons = await until(lambda: running(mark))

    assert daemons, "the daemon was seen while the run went on"
    assert (await hosting).ending == ("succeeded", "Completed")
    assert running(mark) == []


async def test_a_time_out_kills_the_whole_tree(world: World, mark: str) -> None:
    world.program(DAEMON + f"daemon('{mark}'); daemon('{mark}'); print('up', flush=True); time.sleep(600)")
    hosting = asyncio.create_task(world.carry_out(timeoutSeconds=2))
    await until(lambda: len(running(mark)) >= 2)
    done = await hosting

    assert done.ending == ("timed_out", "TimedOut")
    assert running(mark) == []


async def test_silence_beyond_the_idle_limit_kills_the_whole_tree(world: World, mark: str) -> None:
    """Also one that ignores every signal it may ignore; what it writes to standard error is no report."""
    world.program(
        DAEMON
        + f"""
import sys
daemon('{mark}')
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
print('up', flush=True)
while True:
    time.sleep(0.1)
    print('still trying', file=sys.stderr, flush=True)
"""
    )
    hosting = asyncio.create_task(world.carry_out(idleTimeoutSeconds=1))
    await until(lambda: running(mark))
    done = await hosting

    assert done.ending == ("timed_out", "IdleTimeout")
    assert "nothing to standard output for 1 s" in done.message
    assert done.said("stdout") == ["up"]
    assert running(mark) == []


async def test_a_program_that_reports_now_and_then_is_not_idle(world: World) -> None:
    """A dot without a line's end is a sign of life too."""
    done = await world.carry_out(
        """
        import time
        for _ in range(8):
            print(".", end="", flush=True)
            time.sleep(0.4)
        print()
        leave(); reflect()
        """,
        idleTimeoutSeconds=2,
    )
    assert done.ending == ("succeeded", "Completed")


async def test_silence_is_not_counted_while_nobody_listens(world: World) -> None:
    """The gateway is away, so the journal is full and the program stands in its pipe: it cannot report."""
    world.program(
        """
        for number in range(90):
            print("x" * 60_000, flush=True)
        leave(); reflect()
        """
    )
    await world.offer(idleTimeoutSeconds=1)
    gateway = Gateway(lambda: world.url, lambda: RUNNER_TOKEN)
    claim = await gateway.claim("local", "instance")
    assert claim is not None
    original = RunGateway.record
    away = asyncio.Event()

    async def late(self: RunGateway, *segment: Any) -> None:
        if not away.is_set():
            await asyncio.sleep(3)
            away.set()
        await original(self, *segment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunGateway, "record", late)
        await host_run(await world.kit(), gateway, claim)
    await gateway.close()
    assert (await world.done(claim.session_uid)).ending == ("succeeded", "Completed")


async def test_a_revocation_kills_the_whole_tree_within_three_seconds(world: World, mark: str) -> None:
    """With the lease of an installation; the daemon has left the group and ignores signals."""
    world.program(DAEMON + f"daemon('{mark}'); time.sleep(600)")
    uid = await world.offer()
    gateway = Gateway(lambda: world.url, lambda: RUNNER_TOKEN)
    claim = await gateway.claim("local", "instance")
    assert claim is not None
    hosting = asyncio.create_task(host_run(await world.kit(), gateway, replace(claim, lease_seconds=15.0)))
    await until(lambda: running(mark))
    await world.backends.sessions.revoke(uid, "policy narrowed")
    revoked = time.monotonic()
    await until(lambda: not running(mark), seconds=5)
    assert time.monotonic() - revoked < 3.0
    await asyncio.wait_for(hosting, 5)
    await gateway.close()

    assert running(mark) == []
    assert list((world.home / "run" / "sessions").iterdir()) == []
    view = await world.backends.sessions.get(uid)
    assert view is not None
    assert view.runs[0].state.value == "revoked"


async def test_a_cancelled_host_leaves_nothing(world: World, mark: str) -> None:
    world.program(DAEMON + f"daemon('{mark}'); time.sleep(600)")
    hosting = asyncio.create_task(world.carry_out())
    await until(lambda: running(mark))
    hosting.cancel()
    await asyncio.wait({hosting})

    assert running(mark) == []
    assert list((world.home / "run" / "sessions").iterdir()) == []


async def test_without_a_sandbox_daemons_are_still_found_by_their_environment(world: World, mark: str) -> None:
    kit = replace(await world.kit(), isolation=Isolation(None, "none"), allow_unisolated=True)
    world.program(DAEMON + f"daemon('{mark}'); time.sleep(1); leave(); reflect()")
    hosting = asyncio.create_task(world.carry_out(kit=kit))
    await until(lambda: running(mark))

    assert (await hosting).ending == ("succeeded", "Completed")
    assert running(mark) == []
