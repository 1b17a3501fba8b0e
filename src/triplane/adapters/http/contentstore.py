"""The content store through the gateway: what the operator uses, for only the gateway writes blobs."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson

from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.errors import (
    BlobErased,
    BlobLost,
    BlobMissing,
    BlobQuarantined,
    Conflict,
    Corrupt,
    DigestMismatch,
    Forbidden,
    InvalidInput,
    TooLarge,
    TriplaneError,
    Unavailable,
)

_PAGE: Final = 1000
_TIMEOUT: Final = aiohttp.ClientTimeout(sock_connect=5.0, sock_read=30.0)
_KEEP_ALIVE_SECONDS: Final = 30.0
"""Less than the gateway keeps an idle connection."""
_BY_REASON: Final[dict[str, type[TriplaneError]]] = {
    "BlobErased": BlobErased,
    "BlobQuarantined": BlobQuarantined,
    "BlobLost": BlobLost,
    "Corrupt": Corrupt,
    "Forbidden": Forbidden,
    "Unauthorized": Forbidden,
    "TooLarge": TooLarge,
}
_BY_STATUS: Final[dict[int, type[TriplaneError]]] = {
    404: BlobMissing,
    409: Conflict,
    410: BlobErased,
    413: TooLarge,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


class GatewayContent:
    """``triplane.ports.ContentStore`` over the gateway's blob calls.

    ``url`` and ``token`` are asked at every call: a restarted gateway may have moved. What arrives is hashed again
    here: the network and the gateway are not trusted with that.
    """

    def __init__(self, url: Callable[[], str], token: Callable[[], str]) -> None:
        self._url = url
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``."""
        if expect is not None:
            parse_digest(expect)
        body: bytes | _Body
        if isinstance(content, bytes):
            _check(len(content), limit)
            body = content
            known: str | None = expect or digest_of_bytes(content)
        else:
            body, known = _Body(content, limit), expect
        if known is None:
            answer = await self._call("POST", "/v1/blobs", body)
        else:
            answer = await self._call("PUT", f"/v1/blobs/{known}", body)
        return str(orjson.loads(answer.body)["digest"])

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``."""
        path = f"/v1/blobs/{digest}"
        wanted, found = parse_digest(digest), hashlib.sha256()
        try:
            async with self._request("GET", path) as answer:
                if answer.status >= 400:
                    _raise_for(_Answer(answer.status, await answer.read()), f"GET {path}")
                async for chunk in answer.content.iter_any():
                    found.update(chunk)
                    yield chunk
        except aiohttp.ClientPayloadError as error:
            raise Corrupt(f"{digest}: the gateway broke off; the blob is damaged, or the gateway stopped") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(error) from error
        if found.hexdigest() != wanted:
            raise Corrupt(f"{digest}: sha256:{found.hexdigest()} arrived; read it again")

    async def exists(self, digest: str) -> bool:
        """See ``ContentStore.exists``."""
        try:
            await self.size(digest)
        except BlobMissing:
            return False
        return True

    async def size(self, digest: str) -> int:
        """See ``ContentStore.size``."""
        parse_digest(digest)
        try:
            answer = await self._call("HEAD", f"/v1/blobs/{digest}")
        except Conflict as error:  # without a body: quarantined, or lost
            raise BlobMissing(f"{digest} is not there; read it to learn why") from error
        return answer.size

    async def delete(self, digest: str) -> bool:
        """See ``ContentStore.delete``. The gateway logs ``blob.erased``."""
        parse_digest(digest)
        try:
            await self._call("DELETE", f"/v1/blobs/{digest}")
        except BlobMissing:
            return False
        return True

    async def list_digests(self) -> AsyncIterator[str]:
        """See ``ContentStore.list_digests``."""
        after = ""
        while True:
            answer = await self._call("GET", f"/v1/blobs?{urlencode({'after': after, 'limit': _PAGE})}")
            digests = orjson.loads(answer.body)["digests"]
            for digest in digests:
                yield digest
            if len(digests) < _PAGE:
                return
            after = digests[-1]

    def _request(self, method: str, path: str, body: "bytes | _Body | None" = None) -> Any:
        """The connections are opened in the loop that uses them. Not httpx: it takes eight times as much of the
        processor per call (docs/reference/benchmarks.md)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_TIMEOUT,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "Content-Type": "application/octet-stream"},
            )
        return self._session.request(
            method,
            self._url() + path,
            data=body.octets() if isinstance(body, _Body) else None if body is None else BytesIO(body),
            headers={"Authorization": f"Bearer {self._token()}"},
            allow_redirects=False,
        )

    async def _call(self, method: str, path: str, body: "bytes | _Body | None" = None) -> "_Answer":
        try:
            async with self._request(method, path, body) as response:
                size = int(response.headers.get("Content-Length", 0))
                answer = _Answer(response.status, await response.read(), size)
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(body, _Body) and body.failure is not None:
                raise body.failure from None  # the content could not be read to its end, or is too large
            raise _unavailable(error) from error
        if answer.status >= 400:
            _raise_for(answer, f"{method} {path}")
        return answer


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response read whole."""

    status: int
    body: bytes
    size: int = 0
    """As the header says: HEAD has no body."""


@dataclass(slots=True)
class _Body:
    """Content on its way. Stops sending over the limit; the gateway then stores nothing, for the body is cut short."""

    _content: AsyncIterable[bytes]
    _limit: int | None
    failure: Exception | None = None
    """Why it could not be sent to its end: aiohttp tells only that it could not."""

    async def octets(self) -> AsyncIterator[bytes]:
        total = 0
        try:
            async for chunk in self._content:
                total += len(chunk)
                _check(total, self._limit)
                yield chunk
        except Exception as error:
            self.failure = error
            raise


def _check(octets: int, limit: int | None) -> None:
    if limit is not None and octets > limit:
        raise TooLarge(f"the content has more than {limit} octets; send less or raise the limit")


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the gateway does not answer ({type(error).__name__}: {error}); try again")


def _raise_for(answer: _Answer, what: str) -> None:
    """The gateway's error as ours. HEAD has no body: then the status alone tells."""
    try:
        error = orjson.loads(answer.body)["error"]
        reason, message = str(error["reason"]), str(error["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        error, reason, message = {}, "", f"HTTP {answer.status}"
    if reason == "DigestMismatch":
        raise DigestMismatch(f"{what}: {message}", actual=str(error.get("actual", "")))
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(answer.status)
    if kind is None:
        kind = Unavailable if answer.status >= 500 else InvalidInput
    raise kind(f"{what}: {message}")
