"""The crash campaign at single system calls: a store, an append in its client, an append in its Postgres backend.

A first run of each deed learns the calls it makes; then there is one strike per call for SIGKILL, and one per call for
each error that call may return. After every strike the store or log is opened anew and must be as if the deed had
happened whole or not at all: acknowledged is there exactly once, unknown at most once, nothing partial is ever seen,
and the same deed done again succeeds and leaves nothing behind.

SIGKILL ends a process, not the machine: that nothing is acknowledged before it is synced is shown by the order of the
calls (``tests/attacks/test_content_store.py``) and by the errors of fsync here.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.inject import Strike
from tests.faults.victims import END

Errors = Mapping[str, set[str]]
"""By errno: the calls that may return it."""

WRITES = {"write", "pwrite64", "writev", "pwritev", "fallocate", "fsync", "fdatasync", "ftruncate"}
NAMES = {"openat", "mkdir", "mkdirat", "link", "linkat", "unlink", "unlinkat", "rename", "renameat", "renameat2"}
LOOKS = {
    "read",
    "pread64",
    "preadv",
    "stat",
    "fstat",
    "newfstatat",
    "getdents64",
    "fchmod",
    "lseek",
    "close",
    "utimensat",
}
SOCKET = {"sendto", "recvfrom", "sendmsg", "recvmsg"}
FILE_ERRORS: Errors = {
    "EIO": WRITES | NAMES | LOOKS,
    "ENOSPC": {"openat", "mkdir", "mkdirat", "link", "linkat"} | WRITES,
    "EINTR": {"openat", "read", "write", "pread64", "pwrite64", "fsync", "fdatasync", "flock"},
}
"""Errors a store may meet, and at which calls (their manual pages; those of asyncio's own sockets are not files)."""
SOCKET_ERRORS: Errors = {
    "ECONNRESET": {"recvfrom", "recvmsg"},
    "ECONNREFUSED": {"connect"},
    "EINTR": SOCKET | {"epoll_wait"},
}
"""Errors the client of a database may meet."""
SEND_ERRORS: Errors = {"EPIPE": {"sendto", "sendmsg"}}
"""Where nothing else is wrong with the connection libpq then waits for the server's last words: seconds each."""
BACKEND_ERRORS: Errors = {
    "EIO": WRITES | LOOKS | SOCKET | {"openat"},
    "ENOSPC": WRITES,
    "EINTR": SOCKET | {"epoll_wait"},
}


def strikes(calls: Sequence[str], errors: Errors, *, start: int = 1) -> list[Strike]:
    """A kill at each of the calls from the ``start``-th on, and each error at each call that may return it."""
    if END in calls:
        calls = calls[: calls.index(END) + 1]
    made = [Strike(number) for number in range(start, len(calls) + 1)]
    met: Counter[str] = Counter()
    for number, call in enumerate(calls, start=1):
        met[call] += 1
        if number >= start:
            made += [Strike(met[call], call, error) for error, at in errors.items() if call in at]
    return made


def some(every: Sequence[Strike], seed: int, count: int | None) -> list[Strike]:
    """``count`` of them, drawn by the seed, in their order; all without a count."""
    if count is None or count >= len(every):
        return list(every)
    drawn = random.Random(seed).sample(range(len(every)), count)  # repeatable, not secret
    return [every[place] for place in sorted(drawn)]


@dataclass
class Report:
    """What was struck, what came of it, and what is wrong."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By deed, fault, and outcome."""
    problems: list[str] = field(default_factory=list)

    def note(self, deed: str, strike: Strike, outcome: str, problems: Iterable[str]) -> None:
        """One strike and what was found after it."""
        self.counts[deed, strike.error or "SIGKILL", outcome] += 1
        self.problems += [f"{deed}, {strike}: {problem}" for problem in problems]

    def table(self) -> str:
        """Strikes by deed, fault and outcome."""
        rows = [f"{deed:42} {fault:11} {outcome:32} {count:5}" for (deed, fault, outcome), count in self.counts.items()]
        return "\n".join([*sorted(rows), f"{self.counts.total()} strikes, {len(self.problems)} problems"])


def asked_seed() -> int:
    """The seed of this run: ``FAULT_SEED``, or 1."""
    return int(os.environ.get("FAULT_SEED", "1"))
