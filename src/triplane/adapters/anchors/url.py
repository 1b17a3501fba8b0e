"""A URL as anchor: the checkpoint is PUT there and read from there by GET, or only POSTed to a service that keeps it.

https, or http on this machine: over an open network anybody could answer with an older checkpoint.
"""

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from triplane.adapters.anchors.authorization import authorization
from triplane.audit.note import MAX_NOTE
from triplane.errors import Forbidden, InvalidInput, Unavailable

TIMEOUT: Final = httpx.Timeout(5.0)
CONTENT_TYPE: Final = "text/plain; charset=utf-8"
POST: Final = "post+"
_ABSENT: Final = frozenset({204, 404, 410})


class UrlAnchor:
    """The latest checkpoint at one URL. No redirect is followed, no proxy of the environment is used."""

    kind = "url"
    every_seconds = 0.0

    def __init__(self, uri: str, credentials: Path | None = None) -> None:
        """``credentials``: see ``authorization``. Raises ``InvalidInput``."""
        check_url(uri)
        self.uri = uri
        self._credentials = credentials
        self.readable = not uri.startswith(POST)
        self._url = uri.removeprefix(POST)
        self._client: httpx.AsyncClient | None = None

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        octets = bytearray()
        try:
            async with self._http().stream("GET", self._url, headers=await self._headers()) as answer:
                if answer.status_code in _ABSENT:
                    return None
                if answer.status_code != httpx.codes.OK:
                    raise Unavailable(f"{self.uri} answers {answer.status_code} to GET")
                async for chunk in answer.aiter_bytes():
                    octets += chunk
                    if len(octets) > MAX_NOTE:
                        raise InvalidInput(f"{self.uri} answers with over {MAX_NOTE} octets: that is no checkpoint")
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.uri} does not answer ({type(error).__name__}: {error})") from error
        return bytes(octets) or None

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``."""
        method = "PUT" if self.readable else "POST"
        headers = await self._headers() | {"Content-Type": CONTENT_TYPE}
        try:
            answer = await self._http().request(method, self._url, content=note, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.uri} does not answer ({type(error).__name__}: {error})") from error
        if not answer.is_success:
            kind = Forbidden if answer.status_code in {401, 403} else Unavailable
            raise kind(f"{self.uri} answers {answer.status_code} to {method}: {answer.text[:200]}")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _headers(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        value = await asyncio.to_thread(authorization, self._credentials, self.uri)
        return {} if value is None else {"Authorization": value}

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, follow_redirects=False)
        return self._client


def check_url(uri: str, what: str = "TRIPLANE_ANCHORS") -> None:
    """Raises ``InvalidInput`` unless checkpoints may go there: https, or http on loopback; no user, no fragment."""
    try:
        parts = urlsplit(uri.removeprefix(POST))
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"{what}: {uri[:200]!r} is no URL: {error}") from error
    if not host:
        raise InvalidInput(f"{what}: {uri[:200]!r} names no host: write https://host/path")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput(f"{what}: a URL has no user, no password and no fragment here, {host} is given one")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise InvalidInput(f"{what}: {uri[:200]!r} must be https:// (http:// only on this machine)")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
