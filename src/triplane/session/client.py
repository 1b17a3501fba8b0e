"""The gateway as runners and session hosts see it: an asynchronous client that outlasts outages.

Every call is idempotent on the gateway's side, so every call is repeated until it is answered. A gateway, operator
or Postgres that restarts costs a running session nothing but a delay.

TriplaneError
├── Unavailable   no answer within the patience given (only where a caller limits it)
├── Conflict
│   └── RunEnded  the run is no longer ours: lost, revoked or finished
├── Forbidden     the token is not (or no longer) accepted
└── …             as the gateway names it (docs/reference/gateway-api.md)
"""

import asyncio
import hashlib
import ipaddress
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from triplane.domain.session import Usage
from triplane.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SequenceGap,
    TooLarge,
    TriplaneError,
    Unavailable,
)
from triplane.session.given import GivenSecrets, read_given
from triplane.session.outputs import Collected
from triplane.session.refusal import refused

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 30.0
_UPLOAD_OCTETS_PER_SECOND = 64 * 1024
"""Slower than this, an upload is broken off and tried again."""
_KEEP_ALIVE_SECONDS = 30.0
"""Less than the gateway keeps an idle connection."""
_UNAVAILABLE = frozenset({429, 502, 503, 504})
_FAILING_SECONDS = 120.0
"""How long an internal error of the gateway is taken for passing."""
CLAIM_WAIT_SECONDS = 25.0
_QUESTION_SECONDS = 20.0
"""Longest wait for a person's answer in one request: less than one may take."""
REFUSALS = frozenset({"SecretForbidden", "SecretUnavailable"})
"""Answers that mean the run cannot be as it was ordered: it is refused with that reason."""


class RunEnded(Conflict):
    """The run was lost, revoked or finished: stop, and report nothing more."""


class _GatewayFailed(TriplaneError):
    """The gateway answered with an internal error."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A claim as the gateway hands it out."""

    session_uid: str
    namespace: str
    name: str
    run: int
    role: str
    task_uid: str
    run_token: str
    lease_seconds: float
    work_order: Mapping[str, Any]


class Gateway:
    """The calls of a runner. ``url`` and ``token`` are asked anew for every attempt: both may change."""

    def __init__(self, url: Callable[[], str | None], token: Callable[[], str | None]) -> None:
        self._url = url
        self._token = token
        # aiohttp takes an eighth of the processor time of httpx per call: on loopback that is most of a runner's.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        await self._http.close()

    async def hello(self, runner: str, instance: str) -> list[tuple[str, int]]:
        """Announce a new runner process; returns the (session, run)s its earlier instances have lost."""
        body = await self._call("POST", f"/v1/runners/{runner}/hello", {"instance": instance}, self._token)
        return [(str(uid), int(run)) for uid, run in body.get("lost", [])]

    async def claim(self, runner: str, instance: str) -> ClaimedRun | None:
        """Wait up to 25 s for a run; None when there was none."""
        body = await self._call(
            "POST",
            "/v1/claims",
            {"runner": runner, "instance": instance, "waitSeconds": CLAIM_WAIT_SECONDS},
            self._token,
            timeout_seconds=CLAIM_WAIT_SECONDS + 15,
        )
        if not body:
            return None
        return ClaimedRun(
            session_uid=body["sessionUid"],
            namespace=body["namespace"],
            name=body["name"],
            run=int(body["run"]),
            role=body["role"],
            task_uid=body["taskUid"],
            run_token=body["runToken"],
            lease_seconds=float(body["leaseSeconds"]),
            work_order=body["workOrder"],
        )

    def of_run(self, claim: ClaimedRun) -> "RunGateway":
        """The calls of one run, authenticated by its run token."""
        return RunGateway(self, claim)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        token: Callable[[], str | None],
        *,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

        async def attempt(url: str, headers: dict[str, str]) -> dict[str, Any]:
            octets = await self._send(
                method, url + path, content, headers | {"Content-Type": "application/json"}, timeout_seconds
            )
            answer = json.loads(octets) if octets else {}
            return answer if isinstance(answer, dict) else {}

        return await self._persist(attempt, token, f"{method} {path}")

    async def _send(
        self,
        method: str,
        url: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        timeout_seconds: float | None = None,
    ) -> bytes:
        """One attempt, within ``timeout_seconds`` in all (30 s if None); the body of the answer.

        Raises what the answer means, or ``aiohttp.ClientError`` or ``TimeoutError``.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or _ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        data = BytesIO(body) if isinstance(body, bytes) else body  # aiohttp warns of octets in one large piece
        async with self._http.request(
            method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            octets = await response.read()
        _raise_for(response.status, octets, f"{method} {urlsplit(url).path}")
        return octets

    async def _persist(
        self,
        attempt: Callable[[str, dict[str, str]], Awaitable[Answer]],
        token: Callable[[], str | None],
        what: str,
    ) -> Answer:
        """Repeat ``attempt`` until the gateway has answered, pausing 0.1 to 5 s."""
        pause = _FIRST_PAUSE
        failing_since: float | None = None
        while True:
            try:
                url, secret = self._url(), token()
                if url is None or secret is None:
                    raise Unavailable("the gateway's address or this runner's token is not there yet")
                return await attempt(_checked(url), {"Authorization": f"Bearer {secret}"})
            except (aiohttp.ClientError, TimeoutError, Unavailable, json.JSONDecodeError, UnicodeError) as error:
                log.warning("%s: gateway unavailable, trying again in %.1f s: %r", what, pause, error)
                failing_since = None
            except _GatewayFailed as error:
                # Answered, but with an internal error: time may heal it, so wait, but not for ever.
                now = asyncio.get_running_loop().time()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since > _FAILING_SECONDS:
                    raise
                log.warning("%s: trying again in %.1f s: %s", what, pause, error)
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads retries, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE)


class RunGateway:
    """The calls of one run."""

    def __init__(self, gateway: Gateway, claim: ClaimedRun) -> None:
        self._gateway = gateway
        self._base = f"/v1/sessions/{claim.session_uid}/runs/{claim.run}"
        self._token = claim.run_token

    def _secret(self) -> str:
        return self._token

    async def start(self, facts: Mapping[str, Any]) -> None:
        """Report that the process runs, with what was measured."""
        await self._post("start", {"facts": facts})

    async def renew(self, counter: int, usage: Usage | None = None) -> str | None:
        """Renew the lease, and tell what was used so far; returns why the run was revoked or lost, if it was."""
        told = {} if usage is None else {"usage": usage_body(usage)}
        reason = (await self._post("renew", {"counter": counter, **told})).get("revoked")
        return None if reason is None else str(reason)

    async def secrets(self) -> GivenSecrets:
        """The values that the work order names. Raises ``RunEndsEarly`` (``SecretForbidden``, ``SecretUnavailable``)
        where the run may not have one of them."""
        body = await self._gateway._call("GET", f"{self._base}/secrets", None, self._secret)
        return read_given(body)

    async def ask_leave(self, call: Mapping[str, Any]) -> bool | None:
        """Ask a person for leave to make this call of a tool and wait: True approved, False rejected, None nobody
        answered in time. Raises ``InvalidInput`` where nobody could tell what they give leave to."""
        while True:
            answer = await self._post("questions", {**call, "waitSeconds": _QUESTION_SECONDS})
            if answer.get("answer") is not None:
                return bool(answer["answer"])
            if answer.get("over"):
                return None

    async def begin_call(self, call: Mapping[str, Any]) -> None:
        """Log that a call of a tool is about to be made."""
        await self._post("calls", call)

    async def end_call(self, call: Mapping[str, Any]) -> None:
        """Log what came of a call of a tool."""
        await self._post("invocations", call)

    async def record(self, sequence: int, records: Sequence[Mapping[str, Any]], held_seconds: float = 0.0) -> None:
        """Store journal segment ``sequence``, whose first record was heard ``held_seconds`` ago."""
        held = min(max(0, round(held_seconds * 1000)), 86_400_000)
        await self._post("records", {"sequence": sequence, "heldMilliseconds": held, "records": list(records)})

    async def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Report the result; returns ``{outcome, reason, message}`` as recorded."""
        return await self._post("finish", result)

    async def upload_reflection(self, octets: bytes) -> str:
        """Store a reflection document; returns its digest."""
        digest = f"sha256:{hashlib.sha256(octets).hexdigest()}"

        async def attempt(url: str, headers: dict[str, str]) -> None:
            await self._gateway._send("PUT", f"{url}/v1/blobs/{digest}", octets, headers)

        await self._gateway._persist(attempt, self._secret, f"PUT /v1/blobs/{digest}")
        return digest

    async def upload(self, output: Collected) -> None:
        """Store an output under its digest."""

        unreadable: list[OSError] = []

        async def octets() -> AsyncIterator[bytes]:
            try:
                async for chunk in output.octets():
                    yield chunk
            except OSError as error:
                unreadable.append(error)
                raise

        async def attempt(url: str, headers: dict[str, str]) -> None:
            try:
                await self._gateway._send(
                    "PUT",
                    f"{url}/v1/blobs/{output.digest}",
                    octets(),
                    headers | {"Content-Length": str(output.size), "Content-Type": "application/octet-stream"},
                    _ANSWER_SECONDS + output.size / _UPLOAD_OCTETS_PER_SECOND,
                )
            except aiohttp.ClientError:
                if unreadable:  # our own disk, not the network: asking again does not help
                    raise unreadable[0] from None
                raise

        await self._gateway._persist(attempt, self._secret, f"PUT /v1/blobs/{output.digest}")

    async def download(self, digest: str, receive: Callable[[AsyncIterator[bytes]], Any]) -> None:
        """Stream a blob into ``receive``, which is called again from the start when the connection breaks."""

        async def attempt(url: str, headers: dict[str, str]) -> None:
            timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_ANSWER_SECONDS)
            async with self._gateway._http.get(
                f"{url}/v1/blobs/{digest}", headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    _raise_for(response.status, await response.read(), f"GET /v1/blobs/{digest}")
                await receive(response.content.iter_chunked(1 << 20))

        await self._gateway._persist(attempt, self._secret, f"GET /v1/blobs/{digest}")

    async def _post(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._gateway._call("POST", f"{self._base}/{call}", body, self._secret)


def usage_body(usage: Usage) -> dict[str, int]:
    """What was used, as the gateway takes it."""
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "costMinorUnits": usage.cost_minor_units,
    }


def _checked(url: str) -> str:
    parts = urlsplit(url)
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = False
    if parts.scheme == "https" or (parts.scheme == "http" and loopback):
        return url.rstrip("/")
    raise InvalidInput(f"gateway address {url}: plain HTTP is for loopback only; use https://")


def _raise_for(status: int, content: bytes, what: str) -> None:
    if status < 400:
        return
    try:
        error = json.loads(content)["error"]
        reason, message = str(error["reason"]), f"{what}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        error, reason, message = {}, "", f"{what}: HTTP {status}"
    if status in _UNAVAILABLE:
        raise Unavailable(message)
    if status >= 500:
        raise _GatewayFailed(message)
    if reason == "RunEnded" or (status == 401 and "/runs/" in what):
        raise RunEnded(message)
    if reason in REFUSALS:
        raise refused(reason, message)
    if reason == "SequenceGap":
        raise SequenceGap(message, expected=int(error.get("expected", 0)))
    raise _ERRORS.get(status, TriplaneError)(message)


_ERRORS: Mapping[int, type[TriplaneError]] = {
    400: InvalidInput,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: TooLarge,
    422: InvalidInput,
}
