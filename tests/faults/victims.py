"""Processes to be struck at a system call: each does one store or one append, in one thread, and tells what came of it.

They are forked from one process that has everything imported (the *nursery*), so one costs milliseconds. In one thread
their system calls are the same ones in the same order every time: what a seed names can be done again.
"""

import asyncio
import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.contract.test_event_log import body
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.postgres import appender
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.digest import digest_of_bytes
from triplane.errors import TriplaneError

ANSWER_SECONDS = 120.0
END = "getppid"
"""A call that a victim makes when its deed is done and not told: with it ends what is struck."""
CHUNK = 200_000
SMALL = b"a small blob: all of it in one go"
LARGE = bytes(range(256)) * 2500
"""640,000 octets: streamed in chunks and written in parts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the victim told before it ended; nothing when it was killed."""

    done: Any = None
    """What the call returned."""
    refused: str = ""
    """The class and message of the ``TriplaneError`` it raised."""
    raised: str = ""
    """Any other exception."""

    @property
    def acknowledged(self) -> bool:
        return self.done is not None

    @property
    def word(self) -> str:
        """For a table of counts."""
        if self.acknowledged:
            return "acknowledged"
        return "refused" if self.refused else "raised" if self.raised else "killed"


class Nursery:
    """The parent's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victims"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for end in (self._process.stdin, self._process.stdout):
            assert end is not None
            end.close()
        self._process.wait()

    def begin(self, deed: str, **arguments: Any) -> int:
        """Fork a victim that waits at the beginning of its deed; its process id."""
        return int(self._ask({"deed": deed, **arguments})["pid"])

    def go(self) -> None:
        """Let it begin."""
        self._tell({"go": True})

    def outcome(self) -> Outcome:
        """What came of it, when it has ended."""
        return Outcome(**self._answer())

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._tell(question)
        return self._answer()

    def _tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._process.kill()
            raise AssertionError("the victim neither ended nor told anything" if not ready else "the nursery died")
        answer: dict[str, Any] = json.loads(line)
        return answer


# The nursery and what it forks


class _InThisThread(ThreadPoolExecutor):
    """Runs what asyncio would give to a thread, at once and here."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:  # the future hands it on
            future.set_exception(error)
        return future


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


async def _store(wait: Callable[[], None], root: str, content: str, *, opened: bool) -> str:
    """Store one blob; ``opened`` says whether the store was opened before the beginning."""
    store = FilesystemContentStore(Path(root)) if opened else None
    wait()
    store = store or FilesystemContentStore(Path(root))
    return await store.store(SMALL if content == "small" else _chunks(LARGE))


async def _store_carelessly(wait: Callable[[], None], root: str, content: str, *, opened: bool) -> str:
    """What a store would be without its protection: written where it is read, and never synced."""
    del content, opened
    digest = digest_of_bytes(LARGE)
    digits = digest.removeprefix("sha256:")
    folder = Path(root, "blobs", "sha256", digits[:2], digits[2:4])
    wait()
    folder.mkdir(parents=True, mode=0o700)
    descriptor = os.open(folder / digits, os.O_WRONLY | os.O_CREAT, 0o444)
    async for chunk in _chunks(LARGE):
        os.write(descriptor, chunk)
    return digest


async def _append(wait: Callable[[], None], dsn: str, first: int, count: int, *, warm: bool) -> list[dict[str, Any]]:
    """Append ``count`` events in one call; ``warm`` appends another one first, on the same connection."""
    appender.TRANSACTION_SECONDS = 1.0
    log = await PostgresEventLog(dsn, writer="victim").open()
    if warm:
        await log.append([body(first - 1)])
    wait()
    return [asdict(receipt) for receipt in await log.append([body(n) for n in range(first, first + count)])]


_DEEDS: dict[str, Any] = {"store": _store, "store carelessly": _store_carelessly, "append": _append}


def _live(deed: str, arguments: dict[str, Any], gate: int, answers: int, begun: int) -> None:
    """In the forked child; never returns."""

    def wait() -> None:
        os.write(begun, b".")
        os.read(gate, 1)

    async def run() -> Any:
        asyncio.get_running_loop().set_default_executor(_InThisThread(max_workers=1))
        return await _DEEDS[deed](wait, **arguments)

    loop = asyncio.new_event_loop()
    try:
        outcome = Outcome(done=loop.run_until_complete(run()))
    except TriplaneError as error:
        outcome = Outcome(refused=f"{type(error).__name__}: {error}")
    except BaseException as error:  # told, and judged by the test
        outcome = Outcome(raised=f"{type(error).__name__}: {error}")
    os.getppid()  # END
    os.write(answers, json.dumps(asdict(outcome)).encode())
    os._exit(0)


def _main() -> None:
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        (gate, open_gate), (answers, answer), (begun, begin) = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            for end in (open_gate, answers, begun):
                os.close(end)
            _live(asked.pop("deed"), asked, gate, answer, begin)
        for end in (gate, answer, begin):
            os.close(end)
        os.read(begun, 1)  # or its end
        _say({"pid": pid})
        sys.stdin.buffer.readline()
        os.write(open_gate, b".")
        told = b""
        while part := os.read(answers, 65536):
            told += part
        os.waitpid(pid, 0)
        for end in (open_gate, answers, begun):
            os.close(end)
        _say(json.loads(told) if told else {})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
