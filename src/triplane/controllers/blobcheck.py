"""Looks up every blob that the log names: there, erased, quarantined, or lost (docs/reference/content-store.md).

What is there is listed first, so only what is missing is remembered of the log. A blob stored after the listing would
look lost, hence each verdict is looked at once more in the store.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from triplane.audit.digest import digest_of_hex
from triplane.audit.model import Recorded
from triplane.domain.absence import Absence, Absent, Fate
from triplane.domain.collection import SPEAKS_OF_BLOBS, octets_of
from triplane.errors import BlobMissing, Corrupt
from triplane.ports import EventLog, KeptContent, SessionStore

PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was looked at."""

    entries: int
    blobs: int
    """Different ones that the log names or speaks of."""
    there: int


async def check_blobs(content: KeptContent, log: EventLog, sessions: SessionStore) -> AsyncIterator[Absent | Checked]:
    """The verdict on each blob that is not there, by digest, and at the end the count. What is there is not read:
    that is the scrub's. About 100 octets of memory for each blob stored. Raises ``Unavailable``."""
    there = {octets_of(blob.digest) async for blob in content.stored()}
    named: set[bytes] = set()
    missing: dict[bytes, Fate] = {}
    after = -1
    while page := await log.query(after=after, limit=PAGE):
        for recorded in page:
            for digest, of_blob in _spoken_of(recorded):
                if digest in there:
                    named.add(digest)
                else:
                    missing.setdefault(digest, Fate()).add(recorded.seq, of_blob)
        after = page[-1].seq
    found = 0
    for digest in sorted(missing):
        name, fate = digest_of_hex(digest.hex()), missing[digest]
        absent = fate.verdict(name, owned=fate.erased >= 0 and await sessions.blob_owned(name))
        if absent.absence is not Absence.ERASED and await _is_there(content, absent.digest):
            found += 1
        else:
            yield absent
    yield Checked(after + 1, len(named) + len(missing), len(named) + found)


def _spoken_of(recorded: Recorded) -> Iterator[tuple[bytes, str | None]]:
    """The blobs of an entry, and those it speaks of without needing them, with its type. Other digests in an entry may
    be of what never was a blob."""
    kind = recorded.entry.get("type")
    if kind in SPEAKS_OF_BLOBS:
        yield octets_of(recorded.entry["data"]["digest"]), str(kind)
    for digest in recorded.entry.get("blobs", ()):
        yield octets_of(digest), None


async def _is_there(content: KeptContent, digest: str) -> bool:
    try:
        return await content.exists(digest)
    except (BlobMissing, Corrupt):
        return False
