"""One bucket, or a part of one, and the calls the content store makes on it; obstore's errors end here.

Only operations that every S3-compatible service has with strong consistency are used: PUT (also conditional, for the
collector's lease alone), multipart upload, COPY, GET, HEAD, LIST, DELETE.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from triplane.errors import BlobMissing, Conflict, InvalidInput, TriplaneError, Unavailable

PART_OCTETS: Final = 8 << 20
"""Size of the parts of an upload; S3 takes at most 10,000 of at least 5 MiB."""
PARTS_AT_ONCE: Final = 3
PAGE: Final = 1000
CHUNK_OCTETS: Final = 1 << 20
_PAUSES: Final = (0.02, 0.1, 0.5, 1.0)
"""Seconds before the repetitions of a call that met another one."""


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where a bucket is and how to get in. Without keys the service's own ways to find credentials are used
    (environment, instance, web identity)."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """``https://host[:port]``; Amazon's when absent."""
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = None
    allow_http: bool = False
    """Without TLS; for a service on this machine."""

    def __repr__(self) -> str:
        return f"S3Place({self.bucket!r}, prefix={self.prefix!r}, endpoint={self.endpoint!r})"


@dataclass(frozen=True, slots=True)
class Found:
    """One object."""

    key: str
    size: int
    modified: datetime
    """By the service's clock, to the second."""
    tag: str | None


class Bucket:
    """Keys below the place's prefix."""

    def __init__(self, place: S3Place) -> None:
        """Nothing is sent yet. Raises ``InvalidInput`` for a place that cannot be one."""
        self.name = f"s3://{place.bucket}/{place.prefix}".rstrip("/")
        config: dict[str, Any] = {"region": place.region}
        if place.endpoint is not None:
            config["endpoint"] = place.endpoint
        if place.access_key is not None:
            config |= {"access_key_id": place.access_key, "secret_access_key": place.secret_key or ""}
        try:
            self._store = S3Store(
                place.bucket,
                prefix=place.prefix or None,
                config=config,  # type: ignore[arg-type]  # its own keys
                client_options={
                    "allow_http": place.allow_http,
                    "connect_timeout": timedelta(seconds=5),
                    "read_timeout": timedelta(seconds=60),
                    "timeout": timedelta(hours=6),  # of a whole request: blobs are large and readers may be slow
                },
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
            )
        except (BaseError, ValueError) as error:
            raise InvalidInput(f"{self.name} cannot be used: {_first_line(error)}; correct the settings") from error

    async def put(self, key: str, content: bytes) -> None:
        """Write an object whole. The signature covers its SHA-256: the service refuses what was altered on the way."""
        with self.errors(key):
            await _patiently(lambda: obstore.put_async(self._store, key, content, use_multipart=False))

    async def put_if(self, key: str, content: bytes, tag: str | None) -> str:
        """Write it if it still has this tag (None: if there is none); returns the new tag. Raises ``Conflict``."""
        mode: Any = "create" if tag is None else {"e_tag": tag}
        with self.errors(key):
            try:
                result = await obstore.put_async(self._store, key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                raise Conflict(f"{self.name}/{key} was changed by somebody else") from error
        return result["e_tag"] or ""

    def writer(self, key: str) -> "Upload":
        """An upload in parts, in constant memory."""
        return Upload(self, key, obstore.open_writer_async(
            self._store, key, buffer_size=PART_OCTETS, max_concurrency=PARTS_AT_ONCE
        ))  # fmt: skip

    async def copy(self, source: str, target: str) -> None:
        """Copy inside the service. Raises ``BlobMissing`` if the source has gone."""
        with self.errors(source):
            await _patiently(lambda: obstore.copy_async(self._store, source, target))

    async def delete(self, *keys: str) -> None:
        """Remove; what is not there is no error."""
        for key in keys:
            with self.errors(key):
                try:
                    await obstore.delete_async(self._store, key)
                except (NotFoundError, FileNotFoundError):
                    continue

    async def head(self, key: str) -> Found | None:
        """The object, if it is there."""
        with self.errors(key):
            try:
                return _found(await obstore.head_async(self._store, key))
            except (NotFoundError, FileNotFoundError):
                return None

    async def get(self, key: str, limit: int = CHUNK_OCTETS) -> tuple[bytes, str]:
        """A small object and its tag. Raises ``BlobMissing``."""
        with self.errors(key):
            result = await obstore.get_async(self._store, key)
            if result.meta["size"] > limit:
                raise InvalidInput(f"{self.name}/{key} is larger than {limit} octets: nobody of us wrote that")
            return bytes(await result.bytes_async()), result.meta["e_tag"] or ""

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """The object in chunks. Raises ``BlobMissing`` before the first one."""
        with self.errors(key):
            result = await obstore.get_async(self._store, key)
            stream = result.stream(min_chunk_size=CHUNK_OCTETS)
        try:
            while True:
                with self.errors(key):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                yield bytes(chunk)
        finally:
            del stream  # closes the connection

    async def list(self, prefix: str) -> AsyncIterator[Found]:
        """Objects below ``prefix/``, by key ascending."""
        with self.errors(prefix):
            pages = obstore.list(self._store, prefix, chunk_size=PAGE)
        while True:
            with self.errors(prefix):
                page = await anext(pages, None)
            if page is None:
                return
            for meta in page:
                yield _found(meta)

    async def probe(self) -> datetime:
        """The service's clock, by writing an object. Raises ``Unavailable`` when the bucket cannot be used."""
        key = f"tmp/{token_hex(16)}"
        await self.put(key, b"")
        try:
            found = await self.head(key)
        finally:
            await self.delete(key)
        if found is None:
            raise Unavailable(
                f"{self.name} does not show at once what was written: it is not strongly consistent and cannot hold "
                "a content store; use another service"
            )
        return found.modified

    async def check(self) -> None:
        """See that the service keeps what is relied upon. Raises ``InvalidInput`` when it does not, ``Unavailable``."""
        key = f"tmp/{token_hex(16)}"
        tag = await self.put_if(key, b"first", None)
        try:
            seen = [found.key async for found in self.list("tmp") if found.key == key]
            if await self.head(key) is None or not seen:
                raise InvalidInput(
                    f"{self.name} does not show at once what was written: it is not strongly consistent and cannot "
                    "hold a content store; use another service"
                )
            for wrong in (None, f'"{"0" * 32}"'):
                with suppress(Conflict):
                    await self.put_if(key, b"second", wrong)
                    raise InvalidInput(
                        f"{self.name} writes over an object although the condition of the request does not hold: two "
                        "collectors could be at work at once; use a service with conditional PUT"
                    )
            if await self.put_if(key, b"third", tag) == tag or (await self.get(key))[0] != b"third":
                raise InvalidInput(f"{self.name} shows earlier content of what was written again; use another service")
        finally:
            await self.delete(key)
        if await self.head(key) is not None:
            raise InvalidInput(f"{self.name} shows an object after it was deleted; use another service")

    @contextmanager
    def errors(self, key: str) -> Iterator[None]:
        """Wrap what obstore raises; what is not there becomes ``BlobMissing``."""
        try:
            yield
        except TriplaneError:
            raise
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise Unavailable(f"{self.name}: there is no such bucket; make it, or correct the settings") from error
            raise BlobMissing(f"no object {self.name}/{key}") from error
        except (BaseError, OSError) as error:
            raise Unavailable(
                f"content store at {self.name}/{key}: {_first_line(error)}; nothing partial is visible. See that the "
                "service runs and lets us in, then try again"
            ) from error


class Upload:
    """A multipart upload that becomes an object when it is closed."""

    def __init__(self, bucket: Bucket, key: str, file: Any) -> None:
        self._bucket = bucket
        self._file = file
        self.key = key

    async def write(self, chunk: bytes) -> None:
        """Append; waits while too many parts are under way."""
        with self._bucket.errors(self.key):
            await self._file.write(chunk)

    async def close(self) -> None:
        """Make it an object."""
        with self._bucket.errors(self.key):
            await self._file.close()


async def _patiently(call: Callable[[], Awaitable[Any]]) -> None:
    """Unconditional calls that the service answers with 409: another one nearby came between (a neighbour's deletion,
    where keys are paths). S3 asks for a repetition then; obstore takes it for a key that is there already."""
    for pause in _PAUSES:
        try:
            await call()
            return
        except AlreadyExistsError:
            await asyncio.sleep(pause)
    await call()


def _found(meta: Any) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"].astimezone(UTC), meta["e_tag"])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
