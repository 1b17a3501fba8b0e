"""The content store through the gateway: what the operator uses, for only the gateway writes blobs."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

import httpx
import orjson

from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.errors import (
    BlobMissing,
    Conflict,
    Corrupt,
    Forbidden,
    InvalidInput,
    TooLarge,
    TriplaneError,
    Unavailable,
)

_PAGE: Final = 1000
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_BY_REASON: Final[dict[str, type[TriplaneError]]] = {
    "DigestMismatch": Corrupt,
    "Corrupt": Corrupt,
    "Forbidden": Forbidden,
    "Unauthorized": Forbidden,
    "TooLarge": TooLarge,
}
_BY_STATUS: Final[dict[int, type[TriplaneError]]] = {
    404: BlobMissing,
    409: Conflict,
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
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``."""
        if expect is not None:
            parse_digest(expect)
        body: bytes | AsyncIterator[bytes]
        if isinstance(content, bytes):
            if limit is not None and len(content) > limit:
                raise TooLarge(f"the content has more than {limit} octets; send less or raise the limit")
            body = content
            known: str | None = expect or digest_of_bytes(content)
        else:
            body, known = _limited(content, limit), expect
        if known is None:
            answer = await self._call("POST", "/v1/blobs", content=body)
        else:
            answer = await self._call("PUT", f"/v1/blobs/{known}", content=body)
        return str(orjson.loads(answer.content)["digest"])

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``."""
        path = f"/v1/blobs/{digest}"
        wanted, found = parse_digest(digest), hashlib.sha256()
        try:
            async with self._client.stream("GET", self._url() + path, headers=self._headers()) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    _raise_for(answer, f"GET {path}")
                async for chunk in answer.aiter_bytes():
                    found.update(chunk)
                    yield chunk
        except httpx.RemoteProtocolError as error:
            raise Corrupt(f"{digest}: the gateway broke off; the blob is damaged, or the gateway stopped") from error
        except httpx.HTTPError as error:
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
        answer = await self._call("HEAD", f"/v1/blobs/{digest}")
        return int(answer.headers["content-length"])

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
            answer = await self._call("GET", "/v1/blobs", params={"after": after, "limit": str(_PAGE)})
            digests = orjson.loads(answer.content)["digests"]
            for digest in digests:
                yield digest
            if len(digests) < _PAGE:
                return
            after = digests[-1]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, self._url() + path, headers=self._headers(), **options)
        except httpx.HTTPError as error:
            raise _unavailable(error) from error
        if answer.status_code >= 400:
            _raise_for(answer, f"{method} {path}")
        return answer


async def _limited(content: AsyncIterable[bytes], limit: int | None) -> AsyncIterator[bytes]:
    """Stops sending over the limit; the gateway then stores nothing, for the body is cut short."""
    total = 0
    async for chunk in content:
        total += len(chunk)
        if limit is not None and total > limit:
            raise TooLarge(f"the content has more than {limit} octets; send less or raise the limit")
        yield chunk


def _unavailable(error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"the gateway does not answer ({type(error).__name__}: {error}); try again")


def _raise_for(answer: httpx.Response, what: str) -> None:
    """The gateway's error as ours. HEAD has no body: then the status alone tells."""
    try:
        error = orjson.loads(answer.content)["error"]
        reason, message = str(error["reason"]), str(error["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        reason, message = "", f"HTTP {answer.status_code}"
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = Unavailable if answer.status_code >= 500 else InvalidInput
    raise kind(f"{what}: {message}")
