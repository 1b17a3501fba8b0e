"""What a proxy does to whom: a rule is a condition, a count, and an action.

An action has two moments: *before* the call is forwarded and *after* the server has answered but before the caller
knows. ``Cut`` raised in the first is a request that never arrived, in the second a reply that was lost.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Cut(Exception):
    """The connection to the caller ends here."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered in the server's place."""

    code: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Action:
    """Does nothing; subclasses say what happens."""

    async def before(self) -> Reply | None:
        """Ahead of forwarding. A ``Reply`` is answered instead; ``Cut`` drops the request."""
        return None

    async def after(self) -> None:
        """The server has answered. ``Cut`` loses the reply."""


@dataclass(frozen=True)
class Delay(Action):
    """The request arrives later."""

    seconds: float

    async def before(self) -> Reply | None:
        await asyncio.sleep(self.seconds)
        return None


class DropRequest(Action):
    """The connection is dropped before the request arrives."""

    async def before(self) -> Reply | None:
        raise Cut


class LoseReply(Action):
    """The request is carried out; nobody learns of it."""

    async def after(self) -> None:
        raise Cut


@dataclass(frozen=True)
class Refuse(Action):
    """The proxy answers with a ``Status`` of Kubernetes; the server hears nothing."""

    code: int
    reason: str
    message: str = "refused by the fault proxy"
    retry_after: int | None = None

    async def before(self) -> Reply | None:
        status = {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "metadata": {},
        }
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Reply(self.code, json.dumps(status).encode(), headers)


class Hold(Action):
    """The request waits until ``release``; any thread may call that."""

    def __init__(self) -> None:
        self._free = False

    def release(self) -> None:
        self._free = True

    async def before(self) -> Reply | None:
        while not self._free:
            await asyncio.sleep(0.02)
        return None


@dataclass(frozen=True)
class Strike(Action):
    """Calls ``hit`` (a kill, say) at the moment: ``applied`` or not, the caller gets no answer."""

    hit: Callable[[], None]
    applied: bool

    async def before(self) -> Reply | None:
        if not self.applied:
            await asyncio.to_thread(self.hit)
            raise Cut
        return None

    async def after(self) -> None:
        await asyncio.to_thread(self.hit)
        raise Cut


@dataclass(slots=True)
class Rule:
    """``do`` to the ``first``-th call that ``when`` holds of, and to the ``times - 1`` after it."""

    when: Callable[[Any], bool]
    do: Action
    first: int = 1
    times: int | None = 1
    """None: for ever."""
    met: int = 0
    """Calls so far of which ``when`` held."""
    struck: list[Any] = field(default_factory=list)
    """The calls it was done to."""

    def applies(self, call: Any) -> bool:
        """Count the call, and say whether it is one of those meant."""
        if not self.when(call):
            return False
        self.met += 1
        meant = self.met >= self.first and (self.times is None or self.met < self.first + self.times)
        if meant:
            self.struck.append(call)
        return meant
