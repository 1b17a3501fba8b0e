"""Where the seed decides: every call of an operator to a store or the server passes here, one at a time.

Calls wait in a row; the world lets one through at a time, in an order the seed chooses. So reconciles of different
objects interleave at every await that matters, and a process can be killed before or after any effect.
"""

import asyncio
from dataclasses import dataclass
from typing import Any


class KilledError(BaseException):
    """The process this call belongs to is no more. Not an ``Exception``: nothing may catch it and go on."""


@dataclass
class Waiting:
    """A call that waits for its turn."""

    process: int
    what: str
    turn: "asyncio.Future[str]"


READS = frozenset({"get", "get_many", "query", "list", "find", "edges", "now", "exists", "size", "head", "wanted"})


class Turnstile:
    """Holds the calls that wait."""

    def __init__(self) -> None:
        self.row: list[Waiting] = []
        self.passed = 0

    def guard(self, target: Any, process: int, plane: str) -> Any:
        """``target`` with every coroutine method made to wait for its turn."""
        return _Guarded(target, self, process, plane)

    async def wait(self, process: int, what: str) -> str:
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.row.append(Waiting(process, what, turn))
        return await turn

    def drop(self, process: int) -> None:
        """The process is killed: its calls never happen."""
        for waiting in [item for item in self.row if item.process == process]:
            self.row.remove(waiting)
            waiting.turn.cancel()


class _Guarded:
    def __init__(self, target: Any, turnstile: Turnstile, process: int, plane: str) -> None:
        self._target = target
        self._turnstile = turnstile
        self._process = process
        self._plane = plane

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            verdict = await self._turnstile.wait(self._process, f"{self._plane}.{name}")
            if verdict == "killed before":
                raise KilledError(name)
            answer = await found(*args, **kwargs)
            if verdict == "killed after":
                raise KilledError(name)
            return answer

        return call
