"""Content store in S3-compatible object storage (docs/reference/content-store.md#in-a-bucket).

Such storage has no locks, and most of it cannot delete on a condition. So **no key is ever written twice**: a blob is
every object below ``blobs/sha256/ab/cd/<hex>/``, each under a random name, each the whole content. Storing again
makes another object (when the last is not recent); a collector deletes exactly the objects it has judged by their
age. The two cannot hurt each other, in whatever order their requests arrive, however long one of them was paused.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final, TypeVar

from triplane.adapters.clock import SystemClock
from triplane.adapters.s3.bucket import Bucket, Found, S3Place, Upload
from triplane.adapters.s3.incoming import Incoming
from triplane.adapters.s3.keeping import Keeping, S3Lease
from triplane.adapters.s3.names import QUARANTINE, TEMPORARY, folder_of, quarantined_digits_of
from triplane.adapters.s3.turns import Turns
from triplane.adapters.uncancelled import uncancelled
from triplane.audit.digest import digest_of_hex, parse_digest
from triplane.domain.collection import StoredBlob
from triplane.errors import BlobMissing, BlobQuarantined, Corrupt, InvalidInput, TriplaneError, Unavailable
from triplane.ports import Clock, KeeperRole

DEFAULT_CAP: Final = 4 << 30
"""Octets of the largest blob unless the store is made with another cap."""
MOST_COPIED: Final = 5 << 30
"""Octets that S3 copies in one request."""
RENEW_SECONDS: Final = 600.0
STORE_TRIES: Final = 4

OnQuarantine = Callable[[str, str], Awaitable[None]]
"""Called with the digest and the place the bad object was moved to; the gateway logs ``blob.quarantined``."""
T = TypeVar("T")


class S3ContentStore:
    """``triplane.ports.KeptContent`` in a bucket. Many processes on many machines may share it."""

    def __init__(
        self,
        place: S3Place,
        *,
        on_quarantine: OnQuarantine | None = None,
        cap: int = DEFAULT_CAP,
        renew_seconds: float = RENEW_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        """Sends nothing; ``open`` does. A blob stored again within ``renew_seconds`` of the last time is not written
        anew, once ``open`` has learned the service's time. Raises ``InvalidInput``."""
        if cap > MOST_COPIED:
            raise InvalidInput(f"a cap of {cap} octets is more than S3 copies at once; give at most {MOST_COPIED}")
        self._bucket = Bucket(place)
        self._turns = Turns()
        self._keeping = Keeping(self._bucket, clock or SystemClock())
        self._on_quarantine = on_quarantine
        self._cap = cap
        self._renew = timedelta(seconds=renew_seconds)

    async def open(self) -> None:
        """See that the bucket can be used, and what time the service has. Raises ``Unavailable``, and ``InvalidInput``
        for a service that does not keep what this store relies upon."""
        await self._bucket.check()
        await self._keeping.set_clock()

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``. Bad objects found in the blob's place are quarantined and replaced."""
        expected = None if expect is None else parse_digest(expect)
        incoming = Incoming(content, self._cap if limit is None else min(limit, self._cap))
        begun = await incoming.begin()
        if begun is not None:
            digits = incoming.checked(expected)
            return await _whole(self._place_octets(digits, begun))
        return await self._store_in_parts(incoming, expected)

    async def _store_in_parts(self, incoming: Incoming, expected: str | None) -> str:
        upload = self._bucket.writer(f"{TEMPORARY}/{token_hex(16)}")
        closed = False
        try:
            async for part in incoming.parts():
                await _whole(upload.write(part))
            digits = incoming.checked(expected)
            closed = True
            await _whole(upload.close())
            return await _whole(self._place_upload(digits, upload, incoming.size))
        finally:
            await _whole(self._discard(upload, closed))

    async def _discard(self, upload: Upload, closed: bool) -> None:
        """Nothing of an upload stays. Closing first is the one way to let go of parts that are there already.

        What a dead service or a killed process leaves, ``tidy`` and the bucket's own lifecycle rule take.
        """
        with suppress(TriplaneError):
            if not closed:
                await upload.close()
            await self._bucket.delete(upload.key)

    async def _place_octets(self, digits: str, octets: bytes) -> str:
        async with self._turns.of(digits):
            if not await self._is_there(digits):
                await self._bucket.put(f"{folder_of(digits)}/{token_hex(8)}", octets)
        return digest_of_hex(digits)

    async def _place_upload(self, digits: str, upload: Upload, size: int) -> str:
        """What was uploaded becomes visible as a blob, whole and verified."""
        async with self._turns.of(digits):
            if not await self._is_there(digits):
                sent = await self._bucket.head(upload.key)
                if sent is None or sent.size != size:
                    raise Unavailable(f"{self._bucket.name}/{upload.key} is not what was sent; try again")
                await self._bucket.copy(upload.key, f"{folder_of(digits)}/{token_hex(8)}")
        return digest_of_hex(digits)

    async def _is_there(self, digits: str) -> bool:
        """True if the blob is there, whole, and counts as stored lately. What is there and bad is quarantined."""
        for found in await self._objects(digits):
            right = await self._is_right(digits, found.key)
            if right:
                return self._keeping.knows_time and self._keeping.now() - found.modified < self._renew
            if right is False:
                await self._move_and_report(digits, found.key)
        return False

    async def _is_right(self, digits: str, key: str) -> bool | None:
        """Whether the object is what its name says; None if it was collected or moved aside meanwhile."""
        try:
            return await self._hash(key) == digits
        except BlobMissing:
            return None

    async def _objects(self, digits: str) -> list[Found]:
        """The blob's objects, the newest first."""
        found = [each async for each in self._bucket.list(folder_of(digits))]
        return sorted(found, key=lambda each: (each.modified, each.key), reverse=True)

    async def _hash(self, key: str) -> str:
        actual = hashlib.sha256()
        async for chunk in self._bucket.read(key):
            actual.update(chunk)
        return actual.hexdigest()

    async def _quarantine(self, digits: str, key: str) -> str | None:
        async with self._turns.of(digits):
            return await self._move_and_report(digits, key)

    async def _move_and_report(self, digits: str, key: str) -> str | None:
        """Move an object aside, and whatever else in the blob's place is bad, and report it; None if it has gone.

        Within a process it is reported once; two processes that find it at the same instant may both report it.
        """
        place = await self._move_aside(digits, key)
        if place is None:
            return None
        for found in await self._objects(digits):
            if await self._is_right(digits, found.key) is False:
                await self._move_aside(digits, found.key)
        if self._on_quarantine is not None:
            await self._on_quarantine(digest_of_hex(digits), place)
        return place

    async def _move_aside(self, digits: str, key: str) -> str | None:
        aside = f"{QUARANTINE}/{digits}/{key.rpartition('/')[2]}"
        try:
            await self._bucket.copy(key, aside)
        except BlobMissing:
            return None
        await self._bucket.delete(key)
        return f"{self._bucket.name}/{aside}"

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``. The last chunk is held back until the digest of all is right, so no
        reader ever has the whole of something wrong."""
        digits = parse_digest(digest)
        with self._turns.used(digits):
            key, chunks, held = await self._opened(digits)
            actual = hashlib.sha256(held)
            try:
                async for chunk in chunks:
                    if held:
                        yield held
                    actual.update(chunk)
                    held = chunk
            except BlobMissing as error:
                raise Unavailable(f"{digest} was removed while it was read; read it again") from error
            finally:
                await chunks.aclose()  # type: ignore[attr-defined]  # of a generator
            if actual.hexdigest() != digits:
                moved = await _whole(self._quarantine(digits, key))
                where = f"moved to {moved}" if moved else "already moved aside by another reader"
                raise Corrupt(
                    f"{digest} at {self._bucket.name}/{key} holds sha256:{actual.hexdigest()}: it was changed after "
                    f"it was stored; {where}. Store the right content again"
                )
            if held:
                yield held

    async def _opened(self, digits: str) -> tuple[str, AsyncIterator[bytes], bytes]:
        """The newest object that can be read, and its first chunk."""
        for _ in range(STORE_TRIES):
            for found in await self._objects(digits):
                chunks = self._bucket.read(found.key)
                try:
                    return found.key, chunks, await anext(chunks, b"")
                except BlobMissing:  # gone between the listing and the reading: there may be a newer one
                    continue
            if not await self._objects(digits):
                break
        raise await self._missing(digits)

    async def _missing(self, digits: str) -> BlobMissing:
        async for found in self._bucket.list(f"{QUARANTINE}/{digits}"):
            return BlobQuarantined(
                f"sha256:{digits} is quarantined: what was stored under it had other content, see "
                f"{self._bucket.name}/{found.key}; store the right content again"
            )
        return BlobMissing(
            f"no blob sha256:{digits} in {self._bucket.name}; store it first (it may have been erased: see the log)"
        )

    async def exists(self, digest: str) -> bool:
        """See ``ContentStore.exists``; nothing is read."""
        return bool(await self._objects(parse_digest(digest)))

    async def size(self, digest: str) -> int:
        """See ``ContentStore.size``."""
        digits = parse_digest(digest)
        found = await self._objects(digits)
        if not found:
            raise await self._missing(digits)
        return found[0].size

    async def delete(self, digest: str) -> bool:
        """See ``ContentStore.delete``: every object of it. Quarantined copies stay: they are evidence. In a bucket
        with versioning earlier versions stay as well, until the bucket's own rules remove them."""
        digits = parse_digest(digest)
        async with self._turns.of(digits):
            found = await self._objects(digits)
            await self._bucket.delete(*(each.key for each in found))
        return bool(found)

    async def list_digests(self) -> AsyncIterator[str]:
        """See ``ContentStore.list_digests``."""
        async for blob in self._keeping.stored():
            yield blob.digest

    def stored(self) -> AsyncIterator[StoredBlob]:
        """See ``KeptContent.stored``."""
        return self._keeping.stored()

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """See ``KeptContent.collect``. Readers and writers of this process are seen; others are safe because their
        object is another one, and because a deleted object is read to its end."""
        digits = parse_digest(digest)
        if self._turns.in_use(digits):
            return False
        async with self._turns.of(digits):
            found = await self._objects(digits)
            if not found or found[0].modified >= before or await self._keeping.holders(digits):
                return False
            await self._bucket.delete(*(each.key for each in found))
            return not await self._objects(digits)

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """See ``KeptContent.hold``. First the note, then another object of the blob: a collector that has not seen
        the one does not know the other."""
        digits = parse_digest(digest)
        await self._keeping.put_hold(digits, holder, seconds)
        for found in await self._objects(digits):
            with suppress(BlobMissing):
                await self._bucket.copy(found.key, f"{folder_of(digits)}/{token_hex(8)}")
                return
        await self._keeping.release(digits, holder)
        raise await self._missing(digits)

    async def release(self, digest: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        return await self._keeping.release(parse_digest(digest), holder)

    async def held(self) -> frozenset[str]:
        """See ``KeptContent.held``."""
        return await self._keeping.held()

    @asynccontextmanager
    async def lease(self, seconds: float, role: KeeperRole = "collector") -> AsyncIterator[S3Lease]:
        """See ``KeptContent.lease``. Needs a service with conditional PUT."""
        lease = S3Lease(self._bucket, self._keeping, seconds, role)
        await lease.take()
        try:
            yield lease
        finally:
            await _whole(lease.give_back())

    async def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``. Needs a service with conditional PUT."""
        return await self._keeping.owner(origin)

    async def quarantined(self) -> AsyncIterator[str]:
        """See ``KeptContent.quarantined``."""
        async for found in self._bucket.list(QUARANTINE):
            digits = quarantined_digits_of(found.key)
            if digits is not None:
                yield digest_of_hex(digits)

    async def tidy(self, *, before: datetime) -> int:
        """See ``KeptContent.tidy``. Unfinished multipart uploads are invisible here: give the bucket a lifecycle rule
        (AbortIncompleteMultipartUpload)."""
        return await self._keeping.tidy(before)


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """A step that is not abandoned half-way when its caller is cancelled."""
    return await uncancelled(asyncio.create_task(work))
