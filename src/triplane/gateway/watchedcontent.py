"""The content store as the gateway's routes use it: counted, and with a reason for every blob that is not there.

Erased, damaged and lost blobs look the same to the store. The log knows the first two; a blob that belongs to a
namespace and is not there is lost, for erasing takes it from its owners. Of what neither knows nothing is claimed here:
blobs that only the log names are told from those never stored, or collected, by ``triplane blob check``, which reads
all of it.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from triplane.audit.digest import parse_digest
from triplane.audit.model import EventFilter
from triplane.controllers.quarantine import unlogged
from triplane.domain.collection import SPEAKS_OF_BLOBS, StoredBlob
from triplane.domain.events import blob_uid
from triplane.errors import BlobErased, BlobLost, BlobMissing, BlobQuarantined
from triplane.gateway.metrics import GatewayMetrics
from triplane.ports import CollectorLease, EventLog, KeeperRole, KeptContent, SessionStore


class WatchedContent:
    """``triplane.ports.KeptContent``: hands everything on. Reads raise ``BlobErased``, ``BlobQuarantined`` or
    ``BlobLost`` where they would raise a bare ``BlobMissing``, as far as that is known."""

    def __init__(self, inner: KeptContent, log: EventLog, sessions: SessionStore, metrics: GatewayMetrics) -> None:
        self._inner = inner
        self._log = log
        self._sessions = sessions
        self._metrics = metrics

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``."""
        if isinstance(content, bytes):
            stored = await self._inner.store(content, expect=expect, limit=limit)
            self._metrics.stored(len(content))
            return stored
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in content:
                size += len(chunk)
                yield chunk

        stored = await self._inner.store(counted(), expect=expect, limit=limit)
        self._metrics.stored(size)
        return stored

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``."""
        try:
            async for chunk in self._inner.resolve(digest):
                self._metrics.read(len(chunk))
                yield chunk
        except BlobMissing as error:
            raise await self._explained(digest, error) from error
        self._metrics.resolved()

    async def exists(self, digest: str) -> bool:
        """See ``ContentStore.exists``."""
        return await self._inner.exists(digest)

    async def size(self, digest: str) -> int:
        """See ``ContentStore.size``."""
        try:
            return await self._inner.size(digest)
        except BlobMissing as error:
            raise await self._explained(digest, error) from error

    async def delete(self, digest: str) -> bool:
        """See ``ContentStore.delete``."""
        return await self._inner.delete(digest)

    def list_digests(self) -> AsyncIterator[str]:
        """See ``ContentStore.list_digests``."""
        return self._inner.list_digests()

    def stored(self) -> AsyncIterator[StoredBlob]:
        """See ``KeptContent.stored``."""
        return self._inner.stored()

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """See ``KeptContent.collect``."""
        return await self._inner.collect(digest, before=before)

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """See ``KeptContent.hold``."""
        await self._inner.hold(digest, holder, seconds)

    async def release(self, digest: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        return await self._inner.release(digest, holder)

    async def held(self) -> frozenset[str]:
        """See ``KeptContent.held``."""
        return await self._inner.held()

    def lease(self, seconds: float, role: KeeperRole = "collector") -> AbstractAsyncContextManager[CollectorLease]:
        """See ``KeptContent.lease``."""
        return self._inner.lease(seconds, role)

    async def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``."""
        return await self._inner.owner(origin)

    def quarantined(self) -> AsyncIterator[str]:
        """See ``KeptContent.quarantined``."""
        return self._inner.quarantined()

    async def tidy(self, *, before: datetime) -> int:
        """See ``KeptContent.tidy``."""
        return await self._inner.tidy(before=before)

    async def _explained(self, digest: str, error: BlobMissing) -> BlobMissing:
        found = await self._reason(digest, error)
        self._metrics.absent(type(found).__name__)
        return found

    async def _reason(self, digest: str, error: BlobMissing) -> BlobMissing:
        parse_digest(digest)
        where = EventFilter(types=SPEAKS_OF_BLOBS, uid=blob_uid(digest))
        newest = await self._log.query(where, limit=1, newest_first=True)
        # Putting a blob gives it an owner, and erasing takes every owner away: with one, the erasure is an old story.
        owned = await self._sessions.blob_owned(digest)
        if newest and newest[0].entry["type"] == "blob.quarantined":
            return BlobQuarantined(
                f"{digest} was found altered and moved aside (log entry {newest[0].seq}); find out what altered it, "
                "then store the right content again"
            )
        if isinstance(error, BlobQuarantined) and digest in await unlogged(self._inner, self._log):
            return BlobQuarantined(str(error))
        if owned:
            return BlobLost(
                f"{digest} is lost: it belongs to a namespace, and no log entry says that it was erased; restore it "
                "from a backup or put it again, and find out who removed it"
            )
        if newest:
            return BlobErased(
                f"{digest} was erased on purpose (log entry {newest[0].seq}); put it again if it is needed"
            )
        if isinstance(error, BlobQuarantined):
            return BlobQuarantined(str(error))
        return BlobMissing(
            f"no blob {digest}: no namespace owns it, and no log entry says that it was erased or found altered; "
            "`triplane blob check` names it if the log needs it, archived entries included: then it is lost"
        )
