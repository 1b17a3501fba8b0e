"""HTTP to the API server: credentials, time-outs, retries, and errors in our own terms.

Every request may be repeated: reads are, creates have deterministic names (a repeat answers 409 and the
caller looks), and status writes carry a resourceVersion (a repeat answers 409 Conflict). So a lost reply
costs a look, never a second effect.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.api_client import ApiClient

from triplane.adapters.kube import login
from triplane.adapters.kube.bucket import TokenBucket
from triplane.errors import Conflict, Forbidden, InvalidInput, NotFound, TooLarge, TriplaneError, Unavailable
from triplane.failpoint import failpoint

USER_AGENT = "triplane"
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 30.0
TLS_CLOSE_SECONDS = 0.05
ATTEMPTS = 6
FIRST_BACKOFF_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 2.0
RETRY_AFTER_CAP_SECONDS = 60.0
WRITES_PER_SECOND = 300.0
WRITE_BURST = 600
"""Far above what work needs (16 writes a Task): they stop a loop gone wild, never a workload."""

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response read whole."""

    code: int
    body: Any
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def message(self) -> str:
        """The server's own words."""
        if isinstance(self.body, Mapping) and self.body.get("message"):
            return str(self.body["message"])
        return f"HTTP {self.code}"

    @property
    def reason(self) -> str:
        """The machine-readable reason of a ``Status``."""
        return str(self.body.get("reason", "")) if isinstance(self.body, Mapping) else ""


class Meter(Protocol):
    """Whoever counts what goes to the API server."""

    def answered(self, verb: str, kind: str, code: int) -> None:
        """An attempt was answered with this HTTP code; 0: not at all."""
        ...

    def held(self, reason: str, seconds: float) -> None:
        """A request was held back, because of ``retry_after`` or of our own ``rate``."""
        ...


class NoMeter:
    """Counts nothing."""

    def answered(self, verb: str, kind: str, code: int) -> None: ...

    def held(self, reason: str, seconds: float) -> None: ...


UNMETERED = NoMeter()


class ExpiredError(TriplaneError):
    """410: the continue token or resourceVersion is too old; begin the LIST again."""


_ERRORS: Mapping[int, type[TriplaneError]] = {
    400: InvalidInput,
    403: Forbidden,
    404: NotFound,
    405: InvalidInput,
    409: Conflict,
    410: ExpiredError,
    413: TooLarge,
    415: InvalidInput,
    422: InvalidInput,
}


def error_of(answer: Answer, what: str) -> TriplaneError:
    """The error that a refusal means; anything unknown is ``Unavailable``: it is not known to be final."""
    return _ERRORS.get(answer.code, Unavailable)(f"{what}: {answer.message}")


class Transport:
    """Requests to one API server as one identity."""

    def __init__(self, kubeconfig: Path | None, meter: Meter = UNMETERED) -> None:
        self._kubeconfig = kubeconfig
        self._meter = meter
        self._bucket = TokenBucket(WRITES_PER_SECOND, WRITE_BURST)
        self._client: ApiClient | None = None
        self._retired: dict[ApiClient, asyncio.TimerHandle] = {}
        self._read_at = 0
        self._login = asyncio.Lock()
        self._not_before = 0.0
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret

    async def close(self) -> None:
        """Close the connections."""
        clients = [*self._retired, *([self._client] if self._client else [])]
        for timer in self._retired.values():
            timer.cancel()
        self._client = None
        self._retired.clear()
        for client in clients:
            await client.close()
        # aiohttp only begins to close TLS connections ("Graceful Shutdown" in its manual).
        await asyncio.sleep(TLS_CLOSE_SECONDS)

    async def _close_retired(self, client: ApiClient) -> None:
        if self._retired.pop(client, None) is not None:
            await client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        kind: str = "",
        attempts: int = ATTEMPTS,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Send until the server decides; ``before`` is awaited ahead of every attempt of a write. ``kind`` is what
        the meter is told.

        Answers with any final code. Raises ``Unavailable`` when no attempt got a final answer.
        """
        what = f"{method} {path}"
        url = f"{path}?{urlencode(query)}" if query else path
        last: TriplaneError = Unavailable(f"{what}: not sent")
        for attempt in range(1, attempts + 1):
            await self._obey_retry_after()
            if before is not None:
                await self._take_token()
                await before()
                failpoint("kube.write.before")
            try:
                answer = await self._send(method, url, body, content_type, relogin=attempt > 1)
                if before is not None:
                    failpoint("kube.write.after")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = Unavailable(f"{what}: the API server cannot be reached: {error or type(error).__name__}")
                last.__cause__ = error
                self._meter.answered(method, kind, 0)
            else:
                self._meter.answered(method, kind, answer.code)
                if answer.code not in _TRANSIENT and answer.code != 401:
                    return answer
                last = Unavailable(f"{what}: {answer.message}")
                self._note_refusal(answer)
            if attempt < attempts:
                await asyncio.sleep(self._backoff(attempt))
        raise last

    def _note_refusal(self, answer: Answer) -> None:
        if answer.code == 401:
            self._read_at = 0
        if answer.retry_after is not None:
            wait = min(answer.retry_after, RETRY_AFTER_CAP_SECONDS)
            self._not_before = max(self._not_before, asyncio.get_running_loop().time() + wait)

    async def _obey_retry_after(self) -> None:
        """Retry-After speaks for the whole server: every request waits, not only the refused one."""
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            wait *= self._rng.uniform(1.0, 1.1)
            self._meter.held("retry_after", wait)
            await asyncio.sleep(wait)

    async def _take_token(self) -> None:
        wait = self._bucket.take(asyncio.get_running_loop().time())
        if wait > 0:
            self._meter.held("rate", wait)
            await asyncio.sleep(wait)

    def _backoff(self, attempt: int) -> float:
        delay = min(BACKOFF_CAP_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1))
        return delay * self._rng.uniform(0.8, 1.2)

    async def _send(self, method: str, url: str, body: Any, content_type: str, *, relogin: bool) -> Answer:
        client = await self._connected(relogin=relogin)
        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": USER_AGENT,
        }
        token = await login.authorization(cast(Configuration, client.configuration))
        if token:
            headers["Authorization"] = token
        response = await client.rest_client.request(
            method,
            client.configuration.host + url,
            headers=headers,
            body=body,
            _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS),
        )
        content = await response.read()
        try:
            parsed = orjson.loads(content) if content else None
        except orjson.JSONDecodeError:
            parsed = {"message": content[:300].decode("utf-8", "replace").strip()}
        return Answer(response.status, parsed, _seconds(response.headers.get("Retry-After")))

    async def _connected(self, *, relogin: bool) -> ApiClient:
        """The client; made anew when the kubeconfig was replaced or what we held was refused."""
        changed = login.changed_at(self._kubeconfig)
        client = self._client
        if client is not None and (changed in (0, self._read_at)) and not (relogin and self._read_at == 0):
            return client
        async with self._login:
            if self._client is client:
                configuration = await login.load(self._kubeconfig)
                self._client, self._read_at = ApiClient(configuration), changed
                if client is not None:
                    # Requests under way keep their connections for as long as they may last.
                    loop = asyncio.get_running_loop()
                    self._retired[client] = loop.call_later(
                        REQUEST_SECONDS, lambda: asyncio.ensure_future(self._close_retired(client))
                    )
            assert self._client is not None
            return self._client


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; its date form is not used by Kubernetes (RFC 9110 §10.2.3)."""
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
