"""``strace -e inject`` without strace: one system call of a process is failed, or the process is killed at it.

Written against the kernel alone (ptrace(2), seccomp(2) is not needed), because the tests may count on Python and a C
library only. What it does is what ``strace -p PID -e inject=fsync:error=EIO:when=2`` and
``-e inject=all:signal=KILL:when=17`` do: calls are counted from the moment of attaching; a failed call is not carried
out and returns the error; a killed process does not carry out the call it is killed at.

One thread of a process is traced, and the programs struck here have one. A tracer is a thread of its own: the kernel
lets only the thread that attached go on with it. It must not be a child of this process, whose end the tracer would
take from whoever waits for it.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import threading
from dataclasses import dataclass
from typing import Self

WAIT_SECONDS = 60.0
_SEIZE, _INTERRUPT, _SYSCALL, _DETACH, _POKEUSER, _INFO = 0x4206, 0x4207, 24, 17, 6, 0x420E
_TRACESYSGOOD, _EVENT_STOP, _SYSCALL_STOP = 1, 128, signal.SIGTRAP | 0x80
_WALL, _WNOTHREAD = 0x40000000, 0x20000000
_ENTRY, _EXIT = 1, 2
_RAX, _ORIG_RAX = 10 * 8, 15 * 8
"""Offsets in ``struct user`` of x86-64."""
_MACHINE = "x86_64"

NAMES = {
    0: "read", 1: "write", 3: "close", 4: "stat", 5: "fstat", 7: "poll", 8: "lseek", 9: "mmap", 10: "mprotect",
    11: "munmap", 12: "brk", 13: "rt_sigaction", 14: "rt_sigprocmask", 16: "ioctl", 17: "pread64", 18: "pwrite64",
    20: "writev", 24: "sched_yield", 25: "mremap", 28: "madvise", 35: "nanosleep", 37: "alarm", 38: "setitimer",
    39: "getpid", 41: "socket", 42: "connect", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg",
    48: "shutdown", 51: "getsockname", 52: "getpeername", 53: "socketpair", 54: "setsockopt", 55: "getsockopt",
    62: "kill", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 79: "getcwd",
    82: "rename", 83: "mkdir", 86: "link", 87: "unlink", 89: "readlink", 91: "fchmod", 102: "getuid", 104: "getgid",
    107: "geteuid", 108: "getegid", 110: "getppid", 131: "sigaltstack", 186: "gettid", 202: "futex",
    213: "epoll_create", 217: "getdents64", 228: "clock_gettime", 231: "exit_group", 232: "epoll_wait",
    233: "epoll_ctl", 257: "openat", 258: "mkdirat", 262: "newfstatat", 263: "unlinkat", 264: "renameat",
    265: "linkat", 277: "sync_file_range",
    280: "utimensat", 281: "epoll_pwait", 285: "fallocate", 288: "accept4", 289: "signalfd4", 290: "eventfd2",
    291: "epoll_create1", 293: "pipe2", 295: "preadv", 296: "pwritev", 302: "prlimit64", 316: "renameat2",
    318: "getrandom", 332: "statx",
}  # fmt: skip
"""System calls of x86-64 by number; any other is named by its number."""


class CannotTrace(AssertionError):
    """This machine does not let one process trace another, or has another processor."""


@dataclass(frozen=True, slots=True)
class Strike:
    """At the ``when``-th call (from 1) of this name, or of any name: kill, or fail it with ``error``."""

    when: int
    call: str | None = None
    error: str | None = None
    """``EIO``, say; None kills the process."""

    def __str__(self) -> str:
        deed = "signal=KILL" if self.error is None else f"error={self.error}"
        return f"inject={self.call or 'all'}:{deed}:when={self.when}"


NOTHING = Strike(0)
"""Only listens."""


class Tracer:
    """Traces a process until it was struck, has ended, or ``release`` is called; then lets go of it."""

    def __init__(self, pid: int, strike: Strike = NOTHING) -> None:
        self.calls: list[str] = []
        """What the process called since it was attached to, up to the strike."""
        self.struck: str | None = None
        """The call that was struck."""
        self._pid = pid
        self._strike = strike
        self._met = 0
        self._wanted = True
        self._attached = threading.Event()
        self._failure: BaseException | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._thread = threading.Thread(target=self._run, name=f"tracer of {pid}", daemon=True)

    def __enter__(self) -> Self:
        if platform.machine() != _MACHINE:
            raise CannotTrace(f"system calls are struck on {_MACHINE} only, this is {platform.machine()}")
        self._thread.start()
        if not self._attached.wait(WAIT_SECONDS):
            raise CannotTrace(f"process {self._pid} did not stop within {WAIT_SECONDS:.0f} s to be traced")
        if self._failure is not None:
            raise CannotTrace(
                f"process {self._pid} cannot be traced: {self._failure}. These tests need ptrace(2): run them as root, "
                "or with kernel.yama.ptrace_scope at 0 or 1 and no seccomp filter against it"
            ) from self._failure
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
        if self._failure is not None:
            raise self._failure

    def release(self) -> None:
        """Let go of the process if it is still held; returns when that is done."""
        self._wanted = False
        try:
            while self._thread.is_alive():
                os.kill(self._pid, signal.SIGCONT)  # gives the tracer a stop in which it can let go
                self._thread.join(0.5)
        except ProcessLookupError:
            self._thread.join(WAIT_SECONDS)

    def _run(self) -> None:
        try:
            self._ptrace(_SEIZE, 0, _TRACESYSGOOD)
            self._ptrace(_INTERRUPT)
        except OSError as error:
            self._failure = error
            self._attached.set()
            return
        try:
            while self._step():
                pass
        except ProcessLookupError:
            pass  # killed from elsewhere while it stood still
        except BaseException as error:  # told by whoever waits
            self._failure = error
        finally:
            self._attached.set()

    def _step(self) -> bool:
        """One stop of the process; False when there is nothing more to do with it."""
        try:
            _, status = os.waitpid(self._pid, _WALL | _WNOTHREAD)
        except ChildProcessError:
            return False
        if not os.WIFSTOPPED(status):
            return False
        number = os.WSTOPSIG(status)
        forward = 0
        if number == _SYSCALL_STOP:
            if self._at_call():
                return self._await_end()
        elif status >> 16 != _EVENT_STOP and number != signal.SIGTRAP:
            forward = 0 if number == signal.SIGCONT else number
        if not self._wanted or self.struck is not None:
            self._ptrace(_DETACH, 0, forward)
            return False
        self._ptrace(_SYSCALL, 0, forward)
        self._attached.set()
        return True

    def _at_call(self) -> bool:
        """True when the process has just been killed."""
        info = self._info()
        if info[0] != _ENTRY:
            return False
        name = NAMES.get(info[1], f"call {info[1]}")
        self.calls.append(name)
        strike = self._strike
        if strike.call in {None, name}:
            self._met += 1
            if self._met == strike.when:
                self.struck = name
                if strike.error is None:
                    os.kill(self._pid, signal.SIGKILL)
                    return True
                self._fail(getattr(errno, strike.error))
        return False

    def _fail(self, number: int) -> None:
        """Make the call that begins one that does not exist, and its answer the error."""
        self._ptrace(_POKEUSER, _ORIG_RAX, -1 & (2**64 - 1))
        self._ptrace(_SYSCALL)
        _, status = os.waitpid(self._pid, _WALL | _WNOTHREAD)
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == _SYSCALL_STOP and self._info()[0] == _EXIT:
            self._ptrace(_POKEUSER, _RAX, -number & (2**64 - 1))
            return
        raise AssertionError(f"process {self._pid} did not come back from a failed call: status {status:#x}")

    def _await_end(self) -> bool:
        while True:
            try:
                _, status = os.waitpid(self._pid, _WALL | _WNOTHREAD)
            except ChildProcessError:
                return False
            if not os.WIFSTOPPED(status):
                return False

    def _info(self) -> tuple[int, int]:
        """Whether a call begins or ends, and its number (``struct ptrace_syscall_info``)."""
        buffer = ctypes.create_string_buffer(128)
        self._ptrace(_INFO, len(buffer), ctypes.addressof(buffer))
        operation, number = struct.unpack_from("=B23xQ", buffer.raw)
        return operation, number

    def _ptrace(self, request: int, address: int = 0, data: int = 0) -> None:
        if self._libc.ptrace(request, self._pid, address, data) == -1:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace({request:#x}) of {self._pid}: {os.strerror(number)}")
