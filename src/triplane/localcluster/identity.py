"""Which process this is: never mistaken for a stranger that was given its number after it ended.

A pid alone does not name a process. With its start time (proc(5), ``/proc/<pid>/stat`` field 22, clock ticks since
boot) and the boot id it does; a signal is sent through a pidfd (pidfd_open(2)) whose process was compared with that
after it was opened. What cannot be matched is not signalled.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triplane.errors import Unavailable

POLL_SECONDS: Final = 0.05
_EXITING: Final = 0x4
"""PF_EXITING of ``/proc/<pid>/stat`` field 9 (include/linux/sched.h)."""
_KILLED: Final = 1 << signal.SIGKILL - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from every other that ever had its pid."""

    pid: int
    started: int
    """Clock ticks since boot."""
    boot: str
    """The kernel's boot id."""


def _stat(pid: int) -> list[str] | None:
    """Fields 3 (state) and later of ``/proc/<pid>/stat``; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the command name before it may contain anything


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none, or only a zombie. One whose first thread has ended
    is none while others of it still hold what it has open."""
    fields = _stat(pid)
    if fields is None or fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1):
        return None
    return Identity(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def age_seconds(identity: Identity) -> float:
    """How long ago it was started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - identity.started / os.sysconf("SC_CLK_TCK")


def reap(pid: int) -> None:
    """Collect ``pid``'s exit status if it is an ended child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_alive(identity: Identity) -> bool:
    """True while exactly this process runs."""
    reap(identity.pid)
    return identify(identity.pid) == identity


def is_ending(identity: Identity) -> bool:
    """True from when it can no longer do anything but end, killed or by itself, until it is gone: freeing the memory
    of a large one takes a while, and its files and ports are its own until then."""
    fields = _stat(identity.pid)
    if fields is None or not is_alive(identity):
        return False
    if fields[0] == "Z" or int(fields[6]) & _EXITING:
        return True
    try:
        status = Path(f"/proc/{identity.pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(signals & _KILLED for signals in pending)


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False, and nobody signalled, when it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def session_of(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


def session_members(leader: Identity) -> list[Identity]:
    """Living processes of the session that ``leader`` began (setsid(2)), itself left out."""
    members = []
    for pid in pids():
        if pid == leader.pid or session_of(pid) != leader.pid:
            continue
        member = identify(pid)
        if member is not None and member.started >= leader.started:
            members.append(member)
    return members


async def end(identity: Identity, *, grace: float, first: signal.Signals = signal.SIGTERM) -> bool:
    """TERM (or ``first``), ``grace`` seconds, KILL; returns when the process and its session are verified gone.

    False if it was not running. Raises ``Unavailable`` if it survives KILL for 10 s (uninterruptible sleep).
    """
    if not is_alive(identity):
        return False
    send(identity, first)
    # A stopped process would never see TERM.
    send(identity, signal.SIGCONT)
    await wait_gone([identity], grace)
    # The leader was alive a moment ago, so this session id cannot belong to strangers yet.
    everyone = [identity, *session_members(identity)]
    for process in everyone:
        send(process, signal.SIGKILL)
    if not await wait_gone(everyone, 10.0):
        raise Unavailable(f"process {identity.pid} does not end after SIGKILL; see `ps -o stat,wchan {identity.pid}`")
    return True


async def wait_gone(processes: Sequence[Identity], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
