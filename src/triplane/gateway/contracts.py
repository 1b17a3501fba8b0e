"""Contract checks of a run's outputs, under a time limit.

Small outputs without a schema are checked in a thread (their checks are linear). Everything else goes to a worker
process, one run at a time, which is killed when its time is over: regular expressions of a schema hold Python's lock.
Starting one costs far more than checking, so a worker that has answered is kept for the next run.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from triplane.domain.contract import is_checkable
from triplane.domain.runresult import DeclaredOutput, Uploaded
from triplane.gateway.contractworker import verdict_on
from triplane.ports import ContentStore

CHECKED_OCTETS: Final = 64 * 1024 * 1024
"""Largest output whose content is checked; a larger one of a checkable type is refused."""
_SMALL_OCTETS: Final = 256 * 1024
_KEPT: Final = 2
"""Workers that wait for the next run."""
_CHECKS: Final = 200
"""Checks after which a worker is replaced."""
_WORKER_DIED: Final = (ConnectionError, asyncio.IncompleteReadError)


class ContractWorkers:
    """The worker processes of one gateway: lent to one run each, ended with ``close`` or with the gateway itself."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []

    async def take(self) -> "_Worker":
        """A worker for one run; give it back, or kill it."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.returncode is None:
                return worker
        return _Worker(await _start())

    async def give_back(self, worker: "_Worker") -> None:
        """Keep it for another run, unless enough wait or it has done enough: nothing it grew by stays for ever."""
        if worker.process.returncode is None and worker.checks < _CHECKS and len(self._idle) < _KEPT:
            self._idle.append(worker)
        else:
            await worker.kill()

    async def close(self) -> None:
        """End those that wait."""
        while self._idle:
            await self._idle.pop().kill()


@dataclass(slots=True)
class _Worker:
    process: asyncio.subprocess.Process
    checks: int = 0
    """How many it has answered."""

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class ContractChecks:
    """The checks of one run: ``async with ContractChecks(content, seconds, workers) as checks``."""

    def __init__(self, content: ContentStore, seconds: float, workers: ContractWorkers) -> None:
        self._content = content
        self._seconds = seconds
        self._workers = workers
        self._worker: _Worker | None = None

    async def __aenter__(self) -> Self:
        self._deadline = asyncio.get_running_loop().time() + self._seconds
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._worker is not None:
            await self._workers.give_back(self._worker)

    async def check(self, declared: DeclaredOutput, digest: str) -> Uploaded:
        """Size of the blob and what is wrong with it. Raises ``BlobMissing``, ``Corrupt``, ``Unavailable``."""
        size = await self._content.size(digest)
        if not is_checkable(declared.media_type, declared.schema):
            return Uploaded(size)
        if size > CHECKED_OCTETS:
            return Uploaded(size, f"{size} octets of {declared.media_type}: at most {CHECKED_OCTETS} can be checked")
        if declared.schema is None and size <= _SMALL_OCTETS:
            octets = b"".join([chunk async for chunk in self._content.resolve(digest)])
            return _uploaded(size, await asyncio.to_thread(verdict_on, octets, declared.media_type, None))
        try:
            async with asyncio.timeout_at(self._deadline):
                return _uploaded(size, await self._ask(declared, digest, size))
        except TimeoutError:
            return Uploaded(
                size, f"checking it took more than {self._seconds:g} s; simplify the contract's JSON Schema"
            )
        except _WORKER_DIED:
            return Uploaded(size, "checking it took too much memory or time; simplify the contract or the output")

    async def _ask(self, declared: DeclaredOutput, digest: str, size: int) -> Mapping[str, Any]:
        """A worker's verdict. One that was kept may have died of something else: then a new one is asked."""
        while True:
            worker = self._worker = self._worker or await self._workers.take()
            fresh = worker.checks == 0
            try:
                return await self._ask_worker(worker, declared, digest, size)
            except BaseException as error:
                self._worker = None  # whatever it still says is the answer to another question
                await asyncio.shield(worker.kill())
                if fresh or not isinstance(error, _WORKER_DIED):
                    raise

    async def _ask_worker(self, worker: _Worker, declared: DeclaredOutput, digest: str, size: int) -> Mapping[str, Any]:
        stdin, stdout = worker.process.stdin, worker.process.stdout
        assert stdin is not None
        assert stdout is not None
        order = {"mediaType": declared.media_type, "schema": declared.schema, "size": size}
        stdin.write(orjson.dumps(order) + b"\n")
        async for chunk in self._content.resolve(digest):
            stdin.write(chunk)
            await stdin.drain()
        answer = orjson.loads(await stdout.readuntil(b"\n"))
        assert isinstance(answer, dict)
        worker.checks += 1
        return answer


async def _start() -> asyncio.subprocess.Process:
    """Without our settings: the worker needs none of them, least of all passwords."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "triplane.gateway.contractworker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )


def _uploaded(size: int, verdict: Mapping[str, Any]) -> Uploaded:
    return Uploaded(size, verdict["problem"], verdict["reason"])
