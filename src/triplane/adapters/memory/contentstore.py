"""Content store in memory: the twin of the file system's, for tests and for trying things out."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from triplane.adapters.clock import SystemClock
from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.domain.collection import StoredBlob, check_holder
from triplane.errors import BlobMissing, BlobQuarantined, Conflict, Corrupt, DigestMismatch, TooLarge
from triplane.ports import Clock, KeeperRole

DEFAULT_CAP: Final = 256 << 20
"""Octets of the largest blob unless the store is made with another cap."""
CHUNK: Final = 1 << 20

OnQuarantine = Callable[[str, str], Awaitable[None]]
"""Called with the digest and a word for the place of the bad content."""


@dataclass(frozen=True, slots=True)
class MemoryLease:
    """``triplane.ports.CollectorLease`` of this process: nobody can take it away."""

    began: datetime

    async def renew(self) -> None:
        """See ``CollectorLease.renew``."""


class MemoryContentStore:
    """``triplane.ports.KeptContent`` in this process; gone with it."""

    def __init__(
        self, *, on_quarantine: OnQuarantine | None = None, cap: int = DEFAULT_CAP, clock: Clock | None = None
    ) -> None:
        self._blobs: dict[str, bytes] = {}
        self._stored_at: dict[str, datetime] = {}
        self._reading: Counter[str] = Counter()
        self._holds: dict[tuple[str, str], datetime] = {}
        self._leased: set[KeeperRole] = set()
        self._owner: str | None = None
        self._clock = clock or SystemClock()
        self._quarantined: dict[str, list[bytes]] = {}
        self._on_quarantine = on_quarantine
        self._cap = cap

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """See ``ContentStore.store``. Bad content found in the blob's place is quarantined and replaced."""
        if expect is not None:
            parse_digest(expect)
        octets = await self._take(content, self._cap if limit is None else min(limit, self._cap))
        digest = digest_of_bytes(octets)
        if expect is not None and digest != expect:
            raise DigestMismatch(
                f"the content is {digest}, not the expected {expect}; nothing was stored. "
                "Send the right content or the right digest",
                actual=digest,
            )
        there = self._blobs.get(digest)
        if there is not None and there != octets:
            await self._quarantine(digest, there)
        self._blobs[digest] = octets
        self._stored_at[digest] = self._clock.now()
        return digest

    @staticmethod
    async def _take(content: bytes | AsyncIterable[bytes], limit: int) -> bytes:
        taken = bytearray()
        if isinstance(content, bytes | bytearray | memoryview):
            taken += content
        else:
            async for chunk in content:
                taken += chunk
                if len(taken) > limit:
                    break
        if len(taken) > limit:
            raise TooLarge(f"the content is larger than {limit} octets; send less or raise the limit")
        return bytes(taken)

    async def _quarantine(self, digest: str, bad: bytes) -> None:
        if self._blobs.get(digest) is bad:
            del self._blobs[digest]
            self._quarantined.setdefault(digest, []).append(bad)
            if self._on_quarantine is not None:
                await self._on_quarantine(digest, "memory")

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """See ``ContentStore.resolve``."""
        octets = self._get(digest)
        found = hashlib.sha256(octets).hexdigest()
        if found != parse_digest(digest):
            await self._quarantine(digest, octets)
            raise Corrupt(
                f"{digest} in memory holds sha256:{found}: it was changed after it was stored; moved aside. "
                "Store the right content again"
            )
        self._reading[digest] += 1
        try:
            for start in range(0, len(octets), CHUNK):
                yield octets[start : start + CHUNK]
        finally:
            self._reading[digest] -= 1

    def _get(self, digest: str) -> bytes:
        parse_digest(digest)
        octets = self._blobs.get(digest)
        if octets is not None:
            return octets
        if digest in self._quarantined:
            raise BlobQuarantined(
                f"{digest} is quarantined: what was stored under it had other content; store the right content again"
            )
        raise BlobMissing(f"no blob {digest} in memory; store it first (it may have been erased: see the log)")

    async def exists(self, digest: str) -> bool:
        """See ``ContentStore.exists``."""
        parse_digest(digest)
        return digest in self._blobs

    async def size(self, digest: str) -> int:
        """See ``ContentStore.size``."""
        return len(self._get(digest))

    async def delete(self, digest: str) -> bool:
        """See ``ContentStore.delete``."""
        parse_digest(digest)
        return self._blobs.pop(digest, None) is not None

    async def list_digests(self) -> AsyncIterator[str]:
        """See ``ContentStore.list_digests``."""
        for digest in sorted(self._blobs):
            yield digest

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """See ``KeptContent.stored``."""
        for digest in sorted(self._blobs):
            octets = self._blobs.get(digest)
            if octets is not None:
                yield StoredBlob(digest, len(octets), self._stored_at[digest])

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """See ``KeptContent.collect``. One step of the loop: nothing comes between the checks and the removal."""
        parse_digest(digest)
        if digest not in self._blobs or self._stored_at[digest] >= before:
            return False
        if self._reading[digest] or digest in self._held():
            return False
        del self._blobs[digest]
        return True

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """See ``KeptContent.hold``."""
        check_holder(holder)
        self._get(digest)
        self._holds[digest, holder] = self._clock.now() + timedelta(seconds=seconds)

    async def release(self, digest: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        parse_digest(digest)
        until = self._holds.pop((digest, check_holder(holder)), None)
        return until is not None and until > self._clock.now()

    async def held(self) -> frozenset[str]:
        """See ``KeptContent.held``."""
        return self._held()

    def _held(self) -> frozenset[str]:
        now = self._clock.now()
        return frozenset(digest for (digest, _), until in self._holds.items() if until > now)

    @asynccontextmanager
    async def lease(self, seconds: float, role: KeeperRole = "collector") -> AsyncIterator[MemoryLease]:
        """See ``KeptContent.lease``."""
        del seconds
        if role in self._leased:
            raise Conflict(f"another {role} is at work on this store; let it end")
        self._leased.add(role)
        try:
            yield MemoryLease(self._clock.now())
        finally:
            self._leased.remove(role)

    async def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``."""
        self._owner = self._owner or origin
        return self._owner

    async def quarantined(self) -> AsyncIterator[str]:
        """See ``KeptContent.quarantined``."""
        for digest in sorted(digest for digest, each in self._quarantined.items() for _ in each):
            yield digest

    async def tidy(self, *, before: datetime) -> int:
        """See ``KeptContent.tidy``. Only holds that are over are left behind here."""
        over = [key for key, until in self._holds.items() if until <= min(before, self._clock.now())]
        for key in over:
            del self._holds[key]
        return len(over)
