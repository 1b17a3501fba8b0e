"""A log that is served as C2SP tlog-tiles: by a gateway, or by any server of files that an export was put on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self

import httpx

from triplane.audit.layout import CHECKPOINT, MAX_FILE, bundles_of, parse_bundle
from triplane.audit.note import MAX_NOTE
from triplane.audit.tiles import WIDTH
from triplane.errors import Corrupt, Forbidden, InvalidInput, NotFound, Unavailable

_SECONDS: Final = 60.0
_TRIES: Final = 5
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})


class TiledLog:
    """``triplane.controllers.exporting.LogSource`` below a URL; use it as a context. Nothing of it is believed."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """``token`` is sent to this URL alone: redirections are not followed."""
        self._url = url.rstrip("/")
        headers: Mapping[str, str] = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._client = httpx.AsyncClient(headers=headers, timeout=_SECONDS, trust_env=False)
            supported = httpx.URL(self._url).scheme in {"http", "https"}
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InvalidInput(f"{url!r} is no URL: {error}") from error
        if not supported:
            raise InvalidInput(f"{url!r} is no http:// or https:// URL: name where the log's checkpoint is, without it")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def checkpoint(self) -> bytes:
        """See ``LogSource.checkpoint``."""
        return await self._get(CHECKPOINT, MAX_NOTE)

    async def entries(self, first: int, size: int) -> AsyncIterator[bytes]:
        """See ``LogSource.entries``. The next bundle is fetched while one is worked on."""
        bundles = bundles_of(size, after=first)
        following: asyncio.Task[bytes] | None = None
        try:
            for place, bundle in enumerate(bundles):
                octets = await following if following is not None else await self._get(bundle.path, MAX_FILE)
                following = None
                if place + 1 < len(bundles):
                    following = asyncio.create_task(self._get(bundles[place + 1].path, MAX_FILE))
                try:
                    entries = parse_bundle(octets, bundle.width)
                except InvalidInput as error:
                    raise Corrupt(f"{self._url}/{bundle.path}: {error}; fetch it again later") from error
                for entry in entries[max(0, first - bundle.index * WIDTH) :]:
                    yield entry
        finally:
            if following is not None:
                following.cancel()

    async def _get(self, path: str, most: int) -> bytes:
        """The file; tried again while the server is away."""
        for tries in range(1, _TRIES + 1):
            try:
                return await self._once(path, most)
            except Unavailable:
                if tries == _TRIES:
                    raise
                await asyncio.sleep(0.2 * 2**tries)
        raise AssertionError("unreachable")

    async def _once(self, path: str, most: int) -> bytes:
        url = f"{self._url}/{path}"
        found = bytearray()
        try:
            async with self._client.stream("GET", url) as answer:
                async for chunk in answer.aiter_bytes():
                    found += chunk
                    if len(found) > most:
                        raise Corrupt(f"{url} is over {most} octets: this is no file of a log")
        except httpx.HTTPError as error:
            raise Unavailable(f"{url} cannot be fetched: {error or type(error).__name__}; try again") from error
        if answer.status_code == 200:
            return bytes(found)
        said = f"{url}: {answer.status_code}: {bytes(found[:300]).decode(errors='replace')}"
        if answer.status_code in {404, 410}:
            raise NotFound(f"{said}; the log's size needs this file, or the URL is not a log's")
        if answer.status_code in {401, 403}:
            raise Forbidden(f"{said}; exporting needs the right to read all of the log")
        raise (Unavailable if answer.status_code in _AGAIN else InvalidInput)(said)
