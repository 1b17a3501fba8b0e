"""What was violated at admission, on its way to the log: best effort, in the background, never in anybody's way.

An answer is given whether or not the gateway can be reached. What cannot be told within reason is dropped, and how much
that was is said in the process's own log: at launch, where it counts, the operator records before it decides.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import httpx
import structlog

from triplane.domain.policy import PolicyDecision, PolicyRequest
from triplane.domain.policy_log import Seen, seen
from triplane.errors import TriplaneError

WAITING: Final = 1000
"""Violations that may wait; beyond that the oldest are dropped."""
TOLD_AT_ONCE: Final = 50
PATH: Final = "/v1/policies/violations"
_PAUSE_SECONDS: Final = 0.2
"""Between two calls: whoever makes a webhook refuse at will must not fill the log at will."""
_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0)
_SECONDS: Final = 10.0
_log = structlog.get_logger()


class ViolationNotes:
    """Takes notes, and tells the gateway."""

    def __init__(self, url: Callable[[], str], token: Callable[[], str]) -> None:
        """``url`` and ``token`` of the gateway; both may raise ``Unavailable`` for a while."""
        self._url = url
        self._token = token
        self._waiting: OrderedDict[str, tuple[Seen, PolicyRequest]] = OrderedDict()
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        """Violations nobody will hear of."""

    async def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.create_task(self._keep_telling())

    def missing(self) -> str | None:
        """Nothing: requests are answered without it."""
        return None

    def note(self, decision: PolicyDecision, request: PolicyRequest) -> None:
        """See ``admission.policies.Notes``."""
        try:
            found = [(each.entry().id, each) for each in seen(decision, request)]
        except TriplaneError as error:  # an object without a digest: nobody's answer may hang on that
            self.dropped += len(decision.violations)
            _log.warning("a violation cannot be recorded", kind=request.kind, error=str(error))
            return
        for id_, each in found:
            self._waiting[id_] = (each, request)
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)
            self.dropped += 1
        if self._waiting:
            self._some.set()

    async def close(self) -> None:
        """Stop; what still waits is dropped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_telling(self) -> None:
        failures = said = 0
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            while True:
                await self._some.wait()
                batch = list(self._waiting.items())[:TOLD_AT_ONCE]
                try:
                    await self._tell(client, [item for _, item in batch])
                except (TriplaneError, httpx.HTTPError, httpx.InvalidURL) as error:
                    _log.warning("violations wait to be recorded", waiting=len(self._waiting), error=str(error))
                    await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                    failures += 1
                    continue
                failures = 0
                for id_, _ in batch:
                    self._waiting.pop(id_, None)
                if not self._waiting:
                    self._some.clear()
                if self.dropped > said:
                    _log.warning("violations were dropped", count=self.dropped - said)
                    said = self.dropped
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _tell(self, client: httpx.AsyncClient, items: Sequence[tuple[Seen, PolicyRequest]]) -> None:
        """One call. What the gateway calls wrong is dropped, or it would stand before all others for ever."""
        answer = await client.post(
            self._url() + PATH,
            json={"violations": [_wire(each, request) for each, request in items]},
            headers={"Authorization": f"Bearer {self._token()}"},
        )
        if answer.status_code in (httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.REQUEST_ENTITY_TOO_LARGE):
            self.dropped += len(items)
            _log.warning("the gateway takes no note of violations", status=answer.status_code, said=answer.text[:200])
            return
        answer.raise_for_status()


def _wire(each: Seen, request: PolicyRequest) -> dict[str, Any]:
    user = request.user or {}
    fields = {_camel(name): value for name, value in asdict(each).items() if name != "object_uid"}
    return fields | {"username": str(user.get("username") or ""), "userUid": str(user.get("uid") or "")}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
