"""Content store on a local file system (docs/reference/content-store.md): immutable blobs by SHA-256.

The blocking steps are in ``shards`` and ``temporary``; here they are put in order and run in threads, in
constant memory. A cancelled caller's threads are waited for in the background, so no descriptor is closed
under them.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from triplane.adapters.filesystem.filling import fill
from triplane.adapters.filesystem.keeping import FileLease, Keeping
from triplane.adapters.filesystem.shards import Shards, errors_at
from triplane.adapters.filesystem.temporary import READ_SIZE, TemporaryBlob, store_at_once, verify_blob
from triplane.adapters.uncancelled import uncancelled
from triplane.audit.digest import digest_of_hex, parse_digest
from triplane.domain.collection import StoredBlob
from triplane.errors import BlobMissing, Corrupt, InvalidInput, Unavailable
from triplane.ports import KeeperRole

DEFAULT_CAP: Final = 4 << 30
"""Octets of the largest blob unless the store is made with another cap."""
AT_ONCE_SIZE: Final = 1 << 18
"""Octets up to which content is stored in one go of one thread."""
STORE_TRIES: Final = 4

OnQuarantine = Callable[[str, str], Awaitable[None]]
"""Called with the digest and the place the bad file was moved to; the gateway logs ``blob.quarantined``."""
T = TypeVar("T")


class FilesystemContentStore:
    """``triplane.ports.KeptContent`` in a folder. One file system, local; several processes may share it."""

    def __init__(self, root: Path, *, on_quarantine: OnQuarantine | None = None, cap: int = DEFAULT_CAP) -> None:
        """Open or make the store and sweep the leavings of dead writers. Blocks shortly: call it at start.

        Raises ``Unavailable`` when the folder cannot be used, ``Corrupt`` when a part of it is a link.
        """
        self._shards = Shards(root)
        self._keeping = Keeping(self._shards)
        self._on_quarantine = on_quarantine
        self._cap = cap

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``. A bad file found in the blob's place is quarantined and replaced."""
        expected = None if expect is None else parse_digest(expect)
        most = self._cap if limit is None else min(limit, self._cap)
        if isinstance(content, bytes) and len(content) <= AT_ONCE_SIZE:
            return await self._store_at_once(content, expected, most)
        temporary = await _to_end(TemporaryBlob, self._shards, most)
        try:
            await fill(temporary, content)
            digits = await _to_end(temporary.finish, expected)
            await self._link(temporary, digits)
        finally:
            await _to_end(temporary.discard)
        return digest_of_hex(digits)

    async def _store_at_once(self, content: bytes, expected: str | None, most: int) -> str:
        """All of it in one go of one thread: a small blob costs little more than its system calls."""
        digits = ""
        for _ in range(STORE_TRIES):
            digits, stored = await _to_end(store_at_once, self._shards, content, expected, most)
            if stored:
                return digest_of_hex(digits)
            await self._renewed(digits)  # moves aside what is bad; the next try finds its place free, or good
        raise self._contested(digits)

    async def _link(self, temporary: TemporaryBlob, digits: str) -> None:
        """Link, or find the same content there. Bounded: a place that keeps going bad is not ours to win."""
        for _ in range(STORE_TRIES):
            if await _to_end(temporary.link, digits) or await self._renewed(digits):
                return
        raise self._contested(digits)

    def _contested(self, digits: str) -> Unavailable:
        return Unavailable(
            f"sha256:{digits}: {self._shards.path(digits)} keeps changing under us; see who else writes there"
        )

    async def _renewed(self, digits: str) -> bool:
        """True if the blob is there and whole, and now counts as stored again. What is there and bad is quarantined."""
        try:
            seen, right = await _to_end(verify_blob, self._shards, digits)
        except BlobMissing:
            return False
        except Corrupt:
            await self._quarantine(digits, None)
            return False
        if right:
            return await _to_end(self._shards.renew, digits, seen)
        await self._quarantine(digits, seen)
        return False

    async def _quarantine(self, digits: str, seen: os.stat_result | None) -> Path | None:
        """Move aside and report, both or neither: a reader that is cancelled meanwhile must not silence it."""
        return await uncancelled(asyncio.create_task(self._move_and_report(digits, seen)))

    async def _move_and_report(self, digits: str, seen: os.stat_result | None) -> Path | None:
        moved = await _to_end(self._shards.quarantine, digits, seen)
        if moved is not None and self._on_quarantine is not None:
            await self._on_quarantine(digest_of_hex(digits), str(moved))
        return moved

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``. The last chunk is held back until the digest of all is right, so no
        reader ever has the whole of something wrong."""
        digits = parse_digest(digest)
        try:
            reader = await _to_end(_Reader, self._shards, digits)
        except Corrupt:
            await self._quarantine(digits, None)
            raise
        try:
            held = b""
            while chunk := await _to_end(reader.read):
                if held:
                    yield held
                held = chunk
            if reader.digits != digits:
                moved = await self._quarantine(digits, reader.seen)
                where = f"moved to {moved}" if moved else "already moved aside by another reader"
                raise Corrupt(
                    f"{digest} at {self._shards.path(digits)} holds sha256:{reader.digits}: it was changed "
                    "after it "
                    f"was stored; {where}. Store the right content again"
                )
            if held:
                yield held
        finally:
            reader.close()

    async def exists(self, digest: str) -> bool:
        """Whether a blob is there; nothing is read. ``Corrupt`` when something else is in its place."""
        try:
            await self.size(digest)
        except BlobMissing:
            return False
        return True

    async def size(self, digest: str) -> int:
        """See ``ContentStore.size``."""
        return (await _to_end(self._shards.stat_blob, parse_digest(digest))).st_size

    async def delete(self, digest: str) -> bool:
        """See ``ContentStore.delete``. Quarantined copies stay: they are evidence."""
        return await _to_end(self._shards.remove, parse_digest(digest))

    async def list_digests(self) -> AsyncIterator[str]:
        """See ``ContentStore.list_digests``. One shard at a time; blobs stored meanwhile may be left out."""
        for first in await _to_end(self._shards.shards):
            for second in await _to_end(self._shards.shards, first):
                for digits in await _to_end(self._shards.digits_of_shard, first, second):
                    yield digest_of_hex(digits)

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """See ``KeptContent.stored``. One shard at a time."""
        for first in await _to_end(self._shards.shards):
            for second in await _to_end(self._shards.shards, first):
                for blob in await _to_end(self._keeping.stored_in, first, second):
                    yield blob

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """See ``KeptContent.collect``. Readers and writers of other processes on this machine are seen as well."""
        return await _to_end(self._keeping.collect, parse_digest(digest), before)

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """See ``KeptContent.hold``."""
        await _to_end(self._keeping.hold, parse_digest(digest), holder, seconds)

    async def release(self, digest: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        return await _to_end(self._keeping.release, parse_digest(digest), holder)

    async def held(self) -> frozenset[str]:
        """See ``KeptContent.held``."""
        return frozenset(map(digest_of_hex, await _to_end(self._keeping.held)))

    @asynccontextmanager
    async def lease(self, seconds: float, role: KeeperRole = "collector") -> AsyncIterator[FileLease]:
        """See ``KeptContent.lease``. A lock of the file system: it is lost with the process, whatever ``seconds``."""
        del seconds
        lease = await _to_end(FileLease, self._shards, role)
        try:
            yield lease
        finally:
            lease.close()

    async def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``."""
        return await _to_end(self._keeping.owner, origin)

    async def quarantined(self) -> AsyncIterator[str]:
        """See ``KeptContent.quarantined``."""
        for digits in await _to_end(self._shards.in_quarantine):
            yield digest_of_hex(digits)

    async def tidy(self, *, before: datetime) -> int:
        """See ``KeptContent.tidy``. Temporary files of dead writers go at the next start as well."""
        return await _to_end(self._keeping.tidy, before)


class _Reader:
    """An open blob, read and hashed by threads. The lock keeps ``close`` from a descriptor in use."""

    def __init__(self, shards: Shards, digits: str) -> None:
        self._where = shards.path(digits)
        self._lock = Lock()
        self._hash = hashlib.sha256()
        self._descriptor, self.seen = shards.open_blob(digits)

    @property
    def digits(self) -> str:
        return self._hash.hexdigest()

    def read(self) -> bytes:
        with self._lock, errors_at(self._where):
            if self._descriptor < 0:
                raise InvalidInput("the blob was closed while it was read")
            chunk = os.read(self._descriptor, READ_SIZE)
            self._hash.update(chunk)
            return chunk

    def close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                with suppress(OSError):  # nothing was written: there is nothing to lose
                    os.close(descriptor)


async def _to_end(function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread that is never abandoned half-way.

    Without this a cancelled ``store`` would leave an open temporary file behind that nobody knows of.
    """
    work = asyncio.create_task(asyncio.to_thread(function, *arguments))
    try:
        return await uncancelled(work)
    except asyncio.CancelledError:
        if not work.cancelled() and work.exception() is None:
            _close(work.result())
        raise


def _close(opened: object) -> None:
    """Whatever a cancelled caller will never receive."""
    if isinstance(opened, TemporaryBlob):
        opened.discard()
    elif isinstance(opened, _Reader | FileLease):
        opened.close()
