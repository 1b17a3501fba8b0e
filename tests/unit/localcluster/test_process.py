"""Processes are started once, found again, and never mistaken for another. Real processes throughout."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from triplane.errors import Unavailable
from triplane.localcluster.identity import Identity, end, identify, is_alive, is_ending, send
from triplane.localcluster.process import ManagedProcess, recorded, tail


def managed(home: Path, program: str, **options: object) -> ManagedProcess:
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    return ManagedProcess("worker", argv, home=home, **options)  # type: ignore[arg-type]


SLEEP = "import time; time.sleep(600)"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[ManagedProcess]:
    made = managed(tmp_path, SLEEP)
    yield made
    await made.stop(at_once=True)


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is none of our business."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP])
    yield process
    process.kill()
    process.wait()


async def said(path: Path) -> str:
    """The content of a file that a child is about to write."""
    async with asyncio.timeout(20):
        while not (path.exists() and path.read_text().endswith("\n")):
            await asyncio.sleep(0.02)
    return path.read_text().strip()


# -- pid reuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"started": 1}, id="another process has got the pid since"),
        pytest.param({"boot": "0" * 36}, id="the machine was restarted since"),
    ],
)
async def test_a_reused_pid_is_never_signalled(
    change: dict[str, object], worker: ManagedProcess, stranger: "subprocess.Popen[bytes]"
) -> None:
    theirs = identify(stranger.pid)
    assert theirs is not None
    assert is_alive(theirs)
    worker.start()
    ours = worker.running()
    assert ours is not None
    await worker.stop()
    # The pidfile of a killed worker, whose pid now belongs to the stranger.
    reused = {"pid": theirs.pid, "started": theirs.started, "boot": theirs.boot, "fingerprint": "", **change}
    worker.pidfile.write_text(json.dumps(reused))
    stale = recorded(worker.pidfile)
    assert stale is not None

    assert worker.running() is None
    assert not send(stale, signal.SIGKILL)
    assert not await end(stale, grace=0.1)
    assert not await worker.stop()
    assert stranger.poll() is None
    assert is_alive(theirs)


async def test_the_matching_record_is_signalled(stranger: "subprocess.Popen[bytes]") -> None:
    theirs = identify(stranger.pid)
    assert theirs is not None
    assert send(theirs, signal.SIGTERM)
    assert stranger.wait(10) == -signal.SIGTERM
    assert not send(theirs, signal.SIGTERM)


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEP])
    identity = identify(child.pid)
    assert identity is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet collected
    assert identify(child.pid) is None
    child.wait()


# -- starting ----------------------------------------------------------------------------------------


async def test_starting_twice_starts_once(worker: ManagedProcess) -> None:
    first = worker.start()
    assert worker.start() == first
    assert worker.running() == first


async def test_another_object_of_the_same_name_finds_it(worker: ManagedProcess, tmp_path: Path) -> None:
    first = worker.start()
    assert managed(tmp_path, "whatever").running() == first
    assert worker.is_current()
    assert not managed(tmp_path, "whatever").is_current()
    assert not managed(tmp_path, SLEEP, env={"A": "1"}).is_current()
    assert not managed(tmp_path, SLEEP, release="2").is_current()


async def test_it_is_found_without_its_pidfile(worker: ManagedProcess, tmp_path: Path) -> None:
    first = worker.start()
    worker.pidfile.unlink()
    assert worker.running() == first
    assert await worker.stop()
    assert not is_alive(first)


async def test_a_process_of_another_home_is_not_ours(worker: ManagedProcess, tmp_path: Path) -> None:
    worker.start()
    other = ManagedProcess("worker", [sys.executable, "-c", SLEEP], home=tmp_path / "other")
    assert other.running() is None
    assert not await other.stop()
    assert worker.running() is not None


async def test_a_half_written_pidfile_does_not_hide_it(worker: ManagedProcess) -> None:
    first = worker.start()
    worker.pidfile.write_text("{}")
    assert worker.running() == first


async def test_the_child_inherits_only_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    answer = tmp_path / "environment"
    child = managed(
        tmp_path,
        f"import os, pathlib; pathlib.Path({str(answer)!r}).write_text(' '.join(sorted(os.environ)) + '\\n')",
        env={"GIVEN": "1"},
    )
    # It may be over before it was looked at; then start() says so, and that is not the point here.
    with contextlib.suppress(Unavailable):
        child.start()
    names = set((await said(answer)).split())
    assert {"GIVEN", "SUPERVISED_AS", "TRIPLANE_HOME", "PATH"} <= names
    assert "AWS_SECRET_ACCESS_KEY" not in names
    await child.stop()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot start worker: .*/nowhere"):
        ManagedProcess("worker", [str(tmp_path / "nowhere")], home=tmp_path).start()


async def test_one_that_ends_before_it_is_ready_is_quoted(tmp_path: Path) -> None:
    child = managed(tmp_path, "import time; time.sleep(0.3); raise SystemExit('no such port')")
    child.start()

    async def never() -> bool:
        return False

    with pytest.raises(Unavailable, match=r"(?s)ended before it was ready.*worker\.log.*no such port"):
        await child.wait_ready(never, seconds=30)


async def test_one_that_is_not_ready_in_time_is_named(worker: ManagedProcess) -> None:
    async def never() -> bool:
        return False

    worker.start()
    with pytest.raises(Unavailable, match="was not ready within 0 s"):
        await worker.wait_ready(never, seconds=0.2)


# -- stopping ----------------------------------------------------------------------------------------


async def test_one_that_ignores_term_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = managed(
        tmp_path,
        f"""
        import pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(ready)!r}).write_text("yes\\n")
        time.sleep(600)
        """,
        grace=0.3,
    )
    identity = child.start()
    await said(ready)
    assert await child.stop()
    assert not is_alive(identity)
    assert not child.pidfile.exists()


async def test_one_that_is_frozen_is_woken_to_clean_up(tmp_path: Path) -> None:
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    child = managed(tmp_path, cleaning("SIGTERM", ready, cleaned))
    identity = child.start()
    await said(ready)
    send(identity, signal.SIGSTOP)
    assert await child.stop()
    assert not is_alive(identity)
    assert cleaned.exists()


async def test_one_that_is_killed_is_ending_from_then_on_and_gone_before_the_next_begins(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = managed(
        tmp_path,
        f"""
        import pathlib, time
        held = b"x" * (1 << 30)  # which takes the kernel a while to free
        pathlib.Path({str(ready)!r}).write_text("yes\\n")
        time.sleep(600)
        """,
    )
    killed = child.start()
    await said(ready)
    try:
        send(killed, signal.SIGKILL)
        assert is_ending(killed) or not is_alive(killed)
        following = child.start()
        assert not is_alive(killed)
        assert child.running() == following != killed
    finally:
        await child.stop(at_once=True)


def first_thread_ends(ready: Path, seconds: float) -> str:
    """A program that is a zombie of which a thread goes on for so long."""
    return f"""
        import ctypes, pathlib, threading, time
        threading.Thread(target=time.sleep, args=({seconds},)).start()
        pathlib.Path({str(ready)!r}).write_text("yes\\n")
        ctypes.CDLL(None).pthread_exit(None)
    """


async def test_one_whose_first_thread_has_ended_still_holds_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    child = managed(tmp_path, first_thread_ends(ready, 600))
    identity = child.start()
    await said(ready)
    monkeypatch.setattr("triplane.localcluster.process._END_SECONDS", 0.0)
    try:
        async with asyncio.timeout(20):
            while not is_ending(identity):
                await asyncio.sleep(0.02)
        assert is_alive(identity)
        assert child.running() is None
        assert not child.is_current()
        with pytest.raises(Unavailable, match=f"worker does not end, process {identity.pid}"):
            child.start()
    finally:
        assert await child.stop(at_once=True)
    assert not is_alive(identity)


async def test_the_next_one_begins_when_the_last_thread_has_ended(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = managed(tmp_path, first_thread_ends(ready, 1))
    identity = child.start()
    await said(ready)
    try:
        async with asyncio.timeout(20):
            while not is_ending(identity):
                await asyncio.sleep(0.02)
        following = child.start()
        assert following != identity
        assert not is_alive(identity)
    finally:
        await child.stop(at_once=True)


async def test_it_is_given_time_to_clean_up(tmp_path: Path) -> None:
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    child = managed(tmp_path, cleaning("SIGINT", ready, cleaned), stop_signal=signal.SIGINT)
    child.start()
    await said(ready)
    assert await child.stop()
    assert cleaned.exists()


def cleaning(name: str, ready: Path, cleaned: Path) -> str:
    """A program that takes half a second to clean up when it gets the signal."""
    return f"""
        import pathlib, signal, sys, time
        def clean(*_):
            time.sleep(0.5)
            pathlib.Path({str(cleaned)!r}).write_text("yes\\n")
            sys.exit(0)
        signal.signal(signal.{name}, clean)
        pathlib.Path({str(ready)!r}).write_text("yes\\n")
        time.sleep(600)
    """


async def test_a_child_without_the_marks_is_stopped_with_its_session(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    child = managed(
        tmp_path,
        f"""
        import os, pathlib, sys, time
        if os.fork() == 0:
            pathlib.Path({str(note)!r}).write_text(f"{{os.getpid()}}\\n")
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {{}})
        time.sleep(600)
        """,
    )
    child.start()
    grandchild = identify(int(await said(note)))
    assert grandchild is not None
    async with asyncio.timeout(20):
        while b"TRIPLANE_HOME" in Path(f"/proc/{grandchild.pid}/environ").read_bytes():
            await asyncio.sleep(0.02)
    assert await child.stop()
    assert not is_alive(grandchild)


@pytest.mark.parametrize(
    "leave", ["os.setsid()", "os.setpgid(0, 0)", "pass"], ids=["own session", "own group", "same group"]
)
async def test_what_it_left_behind_is_stopped_with_it(leave: str, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    child = managed(
        tmp_path,
        f"""
        import os, pathlib, signal, time
        if os.fork() == 0:
            {leave}
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            pathlib.Path({str(note)!r}).write_text(f"{{os.getpid()}}\\n")
        time.sleep(600)
        """,
        grace=1.0,
    )
    child.start()
    grandchild = identify(int(await said(note)))
    assert grandchild is not None
    assert await child.stop()
    assert not is_alive(grandchild)


async def test_what_a_killed_one_left_behind_is_stopped(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    child = managed(
        tmp_path,
        f"""
        import os, pathlib, time
        if os.fork() == 0:
            os.setsid()
            pathlib.Path({str(note)!r}).write_text(f"{{os.getpid()}}\\n")
        time.sleep(600)
        """,
    )
    leader = child.start()
    grandchild = identify(int(await said(note)))
    assert grandchild is not None
    send(leader, signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert is_alive(grandchild)
    assert await child.stop()
    assert not is_alive(grandchild)


# -- logs --------------------------------------------------------------------------------------------


def test_only_the_end_of_a_log_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert tail(log, lines=2) == "line 9998\nline 9999"
    assert tail(tmp_path / "none") == "(no log)"


def test_an_identity_knows_its_own_process() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me == identify(os.getpid())
    assert Identity(me.pid, me.started + 1, me.boot) != me
