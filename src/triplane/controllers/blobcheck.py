"""Looks up every blob that the log names: there, erased, quarantined, or lost (docs/reference/content-store.md).

What is there is listed first, so only what is missing is remembered of the log. A blob stored after the listing would
look lost, hence each verdict is looked at once more in the store.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from triplane.audit.digest import digest_of_hex
from triplane.audit.model import EventFilter, Recorded
from triplane.domain.absence import Absence, Absent, Fate
from triplane.domain.collection import SPEAKS_OF_BLOBS, octets_of
from triplane.errors import Archived, BlobMissing, Corrupt
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
    that is the scrub's. Of archived entries the log keeps what they need, and those that speak of blobs. About 100
    octets of memory for each blob stored. Raises ``Unavailable``, also when what archived entries need is not known,
    and ``Corrupt`` when that was altered."""
    there = {octets_of(blob.digest) async for blob in content.stored()}
    named: set[bytes] = set()
    missing: dict[bytes, Fate] = {}
    after = -1
    while True:
        try:
            page = await log.query(after=after, limit=PAGE)
        except Archived:  # before this first page, or while it was read
            archived = await log.archived_references()
            named |= archived.needed & there
            for digest in archived.needed - there:
                missing.setdefault(digest, Fate()).needed_archived = True
            page = await _speaking_below(log, archived.upto, after)
            after = archived.upto - 1
        else:
            if not page:
                break
            after = page[-1].seq
        for recorded in page:
            for digest, of_blob in _spoken_of(recorded):
                if digest in there:
                    named.add(digest)
                else:
                    missing.setdefault(digest, Fate()).add(recorded.seq, of_blob)
    found = 0
    for digest in sorted(missing):
        name, fate = digest_of_hex(digest.hex()), missing[digest]
        absent = fate.verdict(name, owned=fate.erased >= 0 and await sessions.blob_owned(name))
        if absent.absence is not Absence.ERASED and await _is_there(content, absent.digest):
            found += 1
        else:
            yield absent
    yield Checked(after + 1, len(named) + len(missing), len(named) + found)


async def _speaking_below(log: EventLog, upto: int, after: int) -> list[Recorded]:
    """The entries behind ``after`` and below ``upto`` that speak of blobs: they stay when others are archived."""
    found: list[Recorded] = []
    while page := await log.query(EventFilter(types=SPEAKS_OF_BLOBS), after=after, limit=PAGE):
        found += [recorded for recorded in page if recorded.seq < upto]
        after = page[-1].seq
        if after >= upto:
            break
    return found


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
