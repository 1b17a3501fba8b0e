"""The runner process: slots, outages of the gateway, its own death and successor."""

import asyncio
import os
import signal
import statistics
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path

from tests.integration.session.processes import running, until
from tests.integration.session.world import RUNNER_TOKEN, World, make_world

from triplane.domain.session import RunState
from triplane.session.runner import run

WORK = "print('at work', flush=True); leave(); reflect()"


async def _state(world: World, uid: str) -> RunState:
    view = await world.backends.sessions.get(uid)
    assert view is not None
    return view.runs[0].state


async def _until_state(world: World, uid: str, state: RunState, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while await _state(world, uid) is not state:
            await asyncio.sleep(0.02)


async def test_sessions_run_side_by_side_up_to_the_slots(world: World) -> None:
    world.program("import time; time.sleep(1.5); leave(); reflect()")
    uids = [await world.offer() for _ in range(3)]
    runner = asyncio.create_task(run(world.config(slots=2)))
    try:
        for uid in uids[:2]:
            await _until_state(world, uid, RunState.STARTED)
        assert await _state(world, uids[2]) is RunState.PERMITTED
        for uid in uids:
            await _until_state(world, uid, RunState.FINISHED)
    finally:
        runner.cancel()
        await asyncio.wait({runner})

    for uid in uids:
        assert (await world.done(uid)).ending == ("succeeded", "Completed")


async def test_a_run_starts_soon_after_it_may(world: World) -> None:
    world.program(WORK)
    runner = asyncio.create_task(run(world.config()))
    delays = []
    try:
        for _ in range(12):
            uid = await world.offer(permit=False)
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await world.permit(uid, 1)
            await _until_state(world, uid, RunState.FINISHED)
            done = await world.done(uid)
            assert done.run.claimed_at is not None
            assert done.run.started_at is not None
            claimed, started = (datetime.fromisoformat(at) for at in (done.run.claimed_at, done.run.started_at))
            delays.append((started - claimed).total_seconds())
            assert time.monotonic() - began < 30
    finally:
        runner.cancel()
        await asyncio.wait({runner})

    print("claim to start, seconds:", sorted(delays))
    assert statistics.median(delays) < 0.5, "0.05 on a quiet machine"


async def test_a_run_survives_the_gateway_being_away(tmp_path: Path) -> None:
    world = await make_world(tmp_path / "home", lease_seconds=1.5)
    world.program(
        """
        import time
        for number in range(30):
            print("line", number, flush=True); time.sleep(0.1)
        leave(); reflect()
        """
    )
    async with world.serving():
        runner = asyncio.create_task(run(world.config()))
        uid = await world.offer()
        await _until_state(world, uid, RunState.STARTED)
        await asyncio.sleep(0.5)
    await asyncio.sleep(4)  # away for longer than the lease and the rest of the program
    assert await _state(world, uid) is RunState.STARTED
    try:
        async with world.serving():
            await _until_state(world, uid, RunState.FINISHED)
            done = await world.done(uid)
            runner.cancel()
            await asyncio.wait({runner})
    finally:
        runner.cancel()

    assert done.ending == ("succeeded", "Completed")
    assert done.said("stdout") == [f"line {number}" for number in range(30)], "every line once, in order"


class RunnerProcess:
    """``python -m triplane.session`` on a world's home."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        for name, text in (
            ("run/endpoints.json", f'{{"gateway": "{self._world.url}"}}'),
            ("secrets/token_runner", RUNNER_TOKEN),
        ):
            file = self._world.home / name
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_text(text)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "triplane.session",
            env={
                "PATH": os.environ["PATH"],
                "TRIPLANE_HOME": str(self._world.home),
                "TRIPLANE_PROGRAMS": str(self._world.programs),
            },
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def stop(self, number: int) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 20)


async def test_a_killed_runner_takes_its_sandboxes_with_it_and_its_successor_says_what_is_lost(world: World) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    world.program(f"import time; os.execv('/bin/sh', ['sh', '-c', 'while :; do sleep 1; done # {mark}'])")
    runner, successor = RunnerProcess(world), RunnerProcess(world)
    try:
        await runner.start()
        uid = await world.offer()
        await _until_state(world, uid, RunState.STARTED)
        await until(lambda: running(mark))
        await runner.stop(signal.SIGKILL)
        await until(lambda: not running(mark), 5)
        assert len(list((world.home / "run" / "sessions").iterdir())) == 1, "its workspace is left"
        await successor.start()
        await _until_state(world, uid, RunState.LOST)
        assert list((world.home / "run" / "sessions").iterdir()) == []
    finally:
        await runner.stop(signal.SIGKILL)
        await successor.stop(signal.SIGTERM)


async def test_a_terminated_runner_ends_at_once_with_nothing_left(world: World) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    world.program(f"import time; os.execv('/bin/sh', ['sh', '-c', 'trap : TERM; while :; do sleep 1; done # {mark}'])")
    runner = RunnerProcess(world)
    try:
        await runner.start()
        uid = await world.offer()
        await _until_state(world, uid, RunState.STARTED)
        await until(lambda: running(mark))
        began = time.monotonic()
        assert await runner.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert running(mark) == []
        assert list((world.home / "run" / "sessions").iterdir()) == []
    finally:
        await runner.stop(signal.SIGKILL)


async def test_the_import_is_fast_and_brings_no_foreign_authority() -> None:
    code = (
        "import sys, time; began = time.process_time(); import triplane.session.runner; "
        "took = time.process_time() - began; "
        "print(took, [m for m in ('kubernetes', 'kopf', 'psycopg', 'alembic') if m in sys.modules])"
    )
    best = 9.0
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]}
        )
        said, _ = await process.communicate()
        took, foreign = said.decode().split(maxsplit=1)
        assert foreign.strip() == "[]"
        best = min(best, float(took))
    assert best < 1.0, "0.4 s of processor time on a quiet machine"
