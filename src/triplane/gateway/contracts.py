"""Contract checks of a run's outputs, under a time limit.

Small outputs without a schema are checked in a thread (their checks are linear). Everything else goes to a worker
process, one per run, which is killed when its time is over: regular expressions of a schema hold Python's lock.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, Self

import orjson

from triplane.domain.contract import is_checkable
from triplane.domain.runresult import DeclaredOutput, Uploaded
from triplane.gateway.contractworker import verdict_on
from triplane.ports import ContentStore

CHECKED_OCTETS: Final = 64 * 1024 * 1024
"""Largest output whose content is checked; a larger one of a checkable type is refused."""
_SMALL_OCTETS: Final = 256 * 1024


class ContractChecks:
    """The checks of one run: ``async with ContractChecks(content, seconds) as checks``."""

    def __init__(self, content: ContentStore, seconds: float) -> None:
        self._content = content
        self._seconds = seconds
        self._worker: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._deadline = asyncio.get_running_loop().time() + self._seconds
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._worker is not None:
            if self._worker.returncode is None:
                self._worker.kill()
            await self._worker.wait()

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
                return _uploaded(size, await self._ask_worker(declared, digest, size))
        except TimeoutError:
            return Uploaded(
                size, f"checking it took more than {self._seconds:g} s; simplify the contract's JSON Schema"
            )
        except (ConnectionError, asyncio.IncompleteReadError):
            return Uploaded(size, "checking it took too much memory or time; simplify the contract or the output")

    async def _ask_worker(self, declared: DeclaredOutput, digest: str, size: int) -> Mapping[str, Any]:
        worker = self._worker or await self._start()
        assert worker.stdin is not None
        assert worker.stdout is not None
        order = {"mediaType": declared.media_type, "schema": declared.schema, "size": size}
        worker.stdin.write(orjson.dumps(order) + b"\n")
        async for chunk in self._content.resolve(digest):
            worker.stdin.write(chunk)
            await worker.stdin.drain()
        answer = orjson.loads(await worker.stdout.readuntil(b"\n"))
        assert isinstance(answer, dict)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        """Without our settings: the worker needs none of them, least of all passwords."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "triplane.gateway.contractworker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )
        return self._worker


def _uploaded(size: int, verdict: Mapping[str, Any]) -> Uploaded:
    return Uploaded(size, verdict["problem"], verdict["reason"])
