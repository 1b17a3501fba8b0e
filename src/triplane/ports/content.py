"""The content-addressed store, as its clients and as its keeper see it."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol

from triplane.domain.collection import StoredBlob

KeeperRole = Literal["collector", "scrubber"]


class ContentStore(Protocol):
    """Immutable blobs by SHA-256."""

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """Store durably; returns ``sha256:…``. Nothing is visible before it is whole and synced.

        Raises ``DigestMismatch`` when ``expect`` differs from the content's digest (both are named), ``TooLarge``
        over ``limit`` octets, ``Unavailable`` when the disk is full or failing (nothing partial is left).
        """
        ...

    def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """The content in chunks, verified while it streams; ``Corrupt`` at the end if it is not what was
        stored (then it is quarantined), ``BlobMissing`` if there is none."""
        ...

    async def exists(self, digest: str) -> bool: ...

    async def size(self, digest: str) -> int:
        """Octets; ``BlobMissing`` if there is none."""
        ...

    async def delete(self, digest: str) -> bool:
        """True if there was one."""
        ...

    def list_digests(self) -> AsyncIterator[str]:
        """All digests, ascending."""
        ...


class CollectorLease(Protocol):
    """The right to be the one collector, or scrubber, of a store."""

    @property
    def began(self) -> datetime:
        """When it was granted, by the clock that ``StoredBlob.stored_at`` is told by."""
        ...

    async def renew(self) -> None:
        """Keep it. Raises ``Fenced`` when somebody else has it: stop; what was collected so far was right."""
        ...


class KeptContent(ContentStore, Protocol):
    """A content store as its keeper sees it, who collects what nobody needs. Clients of the gateway see less."""

    def stored(self) -> AsyncIterator[StoredBlob]:
        """Every blob, by digest ascending; those stored meanwhile may be left out. Storing content again renews
        ``stored_at``, to within the store's own tolerance (ten minutes, if it does not say otherwise)."""
        ...

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """Remove the blob, unless it was stored (also again) at or after ``before``, is being stored or read by
        anybody the store can see, or is held. A store that is acknowledged is never undone by this, whatever the
        two do at once. True if it was removed."""
        ...

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """Bar ``collect`` for so long, in the name of ``holder`` (``[a-z0-9-]``, at most 63); again: for so long from
        now. Holds do not bar ``delete``, which is erasure on purpose. Raises ``BlobMissing``, ``InvalidInput``."""
        ...

    async def release(self, digest: str, holder: str) -> bool:
        """End the hold; False if there was none."""
        ...

    async def held(self) -> frozenset[str]:
        """Digests somebody holds now."""
        ...

    def lease(self, seconds: float, role: KeeperRole = "collector") -> AbstractAsyncContextManager[CollectorLease]:
        """Be the only one in this role inside the context. A holder that dies loses it, at the latest ``seconds`` after
        it last renewed. Raises ``Conflict`` when there is another."""
        ...

    async def owner(self, origin: str) -> str:
        """The log whose store this is: the one that asked first, now or ever. Two that shared a store would each
        collect what only the other needs."""
        ...

    def quarantined(self) -> AsyncIterator[str]:
        """The digest of everything that lies in quarantine, ascending, each as often as something was moved aside."""
        ...

    async def tidy(self, *, before: datetime) -> int:
        """Remove what dead writers left before then, and what is kept twice; returns how many. For the lease's
        holder."""
        ...
