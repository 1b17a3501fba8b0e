"""What the keeper of a bucket does: list with times, hold, tidy, and be the only one who collects."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from secrets import token_hex

import orjson

from triplane.adapters.s3.bucket import Bucket, Found
from triplane.adapters.s3.names import BLOBS, HOLDS, LEASES, OWNER, TEMPORARY, digits_of, hold_of
from triplane.audit.digest import digest_of_hex
from triplane.domain.collection import StoredBlob, check_holder
from triplane.errors import BlobMissing, Conflict, Fenced, TriplaneError
from triplane.ports import Clock, KeeperRole


class Keeping:
    """The keeper's view of a bucket. Times are the service's: ours may be wrong, and ages must not be."""

    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        self._bucket = bucket
        self._clock = clock
        self._ahead = timedelta()
        self.knows_time = False

    async def set_clock(self) -> None:
        """Learn how far the service's clock is ahead of ours. Raises ``Unavailable``."""
        asked = self._clock.now()
        self._ahead = await self._bucket.probe() - asked
        self.knows_time = True

    def now(self) -> datetime:
        """The service's time, to about a second."""
        return self._clock.now() + self._ahead

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """See ``KeptContent.stored``."""
        newest: Found | None = None
        async for found in self._bucket.list(BLOBS):
            digits = digits_of(found.key)
            if digits is None:
                continue
            if newest is not None and digits_of(newest.key) != digits:
                yield _blob(newest)
                newest = None
            if newest is None or found.modified > newest.modified:
                newest = found
        if newest is not None:
            yield _blob(newest)

    async def put_hold(self, digits: str, holder: str, seconds: float) -> None:
        """Note a hold. Raises ``InvalidInput``."""
        until = self.now() + timedelta(seconds=seconds)
        await self._bucket.put(f"{HOLDS}/{digits}/{check_holder(holder)}", _document(until=until))

    async def release(self, digits: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        key = f"{HOLDS}/{digits}/{check_holder(holder)}"
        until = await self._until(key)
        await self._bucket.delete(key)
        return until is not None and until > self.now()

    async def holders(self, digits: str) -> list[str]:
        """Who holds it now."""
        return [name async for _, name in self._holds(f"{HOLDS}/{digits}")]

    async def held(self) -> frozenset[str]:
        """See ``KeptContent.held``."""
        return frozenset([digest_of_hex(digits) async for digits, _ in self._holds(HOLDS)])

    async def _holds(self, prefix: str) -> AsyncIterator[tuple[str, str]]:
        async for found in self._bucket.list(prefix):
            hold = hold_of(found.key)
            if hold is None:
                continue
            until = await self._until(found.key)
            if until is not None and until > self.now():
                yield hold

    async def _until(self, key: str) -> datetime | None:
        try:
            content, _ = await self._bucket.get(key)
        except BlobMissing:
            return None
        return _time(content)

    async def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``: an object that is written once."""
        with suppress(BlobMissing):
            return await self._owner()
        with suppress(Conflict):  # somebody was first, a moment ago
            await self._bucket.put_if(OWNER, f"{origin}\n".encode(), None)
        return await self._owner()

    async def _owner(self) -> str:
        content, _ = await self._bucket.get(OWNER)
        return content.decode(errors="replace").strip()

    async def tidy(self, before: datetime) -> int:
        """See ``KeptContent.tidy``."""
        gone = 0
        async for found in self._bucket.list(TEMPORARY):
            if found.modified < before:
                await self._bucket.delete(found.key)
                gone += 1
        async for found in self._bucket.list(HOLDS):
            # Old by its writing as well: a hold that is being renewed is young.
            until = await self._until(found.key)
            if found.modified < before and until is not None and until <= min(before, self.now()):
                await self._bucket.delete(found.key)
                gone += 1
        return gone + await self._tidy_doubles(before)

    async def _tidy_doubles(self, before: datetime) -> int:
        """Of the objects of a blob the newest stays, and whatever is not old."""
        gone, kept = 0, None
        group: list[Found] = []
        async for found in self._bucket.list(BLOBS):
            digits = digits_of(found.key)
            if digits is None:
                continue
            if digits != kept:
                gone += await self._drop_older(group, before)
                kept, group = digits, []
            group.append(found)
        return gone + await self._drop_older(group, before)

    async def _drop_older(self, group: list[Found], before: datetime) -> int:
        older = sorted(group, key=lambda each: (each.modified, each.key))[:-1]
        old = [each.key for each in older if each.modified < before]
        await self._bucket.delete(*old)
        return len(old)


class S3Lease:
    """``triplane.ports.CollectorLease`` as an object that is only ever written on condition of its tag."""

    def __init__(self, bucket: Bucket, keeping: Keeping, seconds: float, role: KeeperRole) -> None:
        self._bucket = bucket
        self._keeping = keeping
        self._life = timedelta(seconds=seconds)
        self._role = role
        self._key = f"{LEASES}/{role}"
        self._tag: str | None = None
        self.began = datetime.min.replace(tzinfo=UTC)

    async def take(self) -> None:
        """Raises ``Conflict`` when another has it."""
        await self._keeping.set_clock()
        tag: str | None = None
        with suppress(BlobMissing):
            content, tag = await self._bucket.get(self._key)
            until = _time(content)
            if until > self._keeping.now():
                raise Conflict(
                    f"another {self._role} is at work on {self._bucket.name} until {until.isoformat()}; let it end, or "
                    f"remove the object {self._key} if you know that there is none"
                )
        self._tag = await self._write(tag, self._life)
        self.began = self._keeping.now()

    async def renew(self) -> None:
        """See ``CollectorLease.renew``."""
        try:
            self._tag = await self._write(self._tag, self._life)
        except Conflict as error:
            raise Fenced(f"another {self._role} has taken over {self._bucket.name}; stop") from error

    async def give_back(self) -> None:
        """Let the next one in at once. When that fails it waits for the end of the lease."""
        with suppress(TriplaneError):
            await self._write(self._tag, -timedelta(hours=1))  # clearly over, also by a clock told by the second

    async def _write(self, tag: str | None, life: timedelta) -> str:
        try:
            return await self._bucket.put_if(self._key, _document(until=self._keeping.now() + life), tag)
        except Conflict as error:
            raise Conflict(f"another {self._role} is at work on {self._bucket.name}; let it end") from error


def _blob(found: Found) -> StoredBlob:
    digits = digits_of(found.key)
    assert digits is not None
    return StoredBlob(digest_of_hex(digits), found.size, found.modified)


def _document(*, until: datetime) -> bytes:
    """Never the same twice: a tag is a hash of the content in many services."""
    return orjson.dumps({"until": until.isoformat(), "token": token_hex(8)})


def _time(content: bytes) -> datetime:
    """When it ends. What nobody can read ends never: an admin must look at it."""
    try:
        return datetime.fromisoformat(orjson.loads(content)["until"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return datetime.max.replace(tzinfo=UTC)
