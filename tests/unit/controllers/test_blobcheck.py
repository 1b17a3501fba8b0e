"""Every blob that the log names is looked up, and what is not there is told apart."""

from tests.contract.session_world import ManualClock

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.audit.model import EventFilter
from triplane.audit.types import STAYING
from triplane.controllers.blobcheck import Checked, check_blobs
from triplane.domain.absence import Absence, Absent
from triplane.domain.collection import SPEAKS_OF_BLOBS, ArchivedReferences, octets_of, references_of
from triplane.domain.events import blob_erased, blob_quarantined, principal_created
from triplane.errors import Archived

DOCUMENTS = {
    name: f"document {name}".encode() for name in ("there", "erased", "quarantined", "lost", "again", "named", "late")
}


async def test_everything_that_is_not_there_is_named_with_its_reason() -> None:
    log, content, sessions = MemoryEventLog(), MemoryContentStore(), MemorySessionStore(ManualClock())
    needs = {name: principal_created(f"p-{name}", octets) for name, octets in DOCUMENTS.items()}
    digests = {name: need.blobs[0] for name, need in needs.items()}
    await log.append(list(needs.values()))
    await log.append([blob_erased(digests[name], 1) for name in ("erased", "again", "named")])
    await log.append([blob_quarantined(digests["quarantined"], 1)])
    await log.append([principal_created(f"p-{name}-once-more", DOCUMENTS[name]) for name in ("again", "named")])
    await sessions.own_blob("team", digests["again"])  # so it was put again; the other was only named
    await content.store(DOCUMENTS["there"])
    *absent, counted = [found async for found in check_blobs(content, log, sessions)]
    assert all(isinstance(found, Absent) for found in absent)
    verdicts = {found.digest: found.absence for found in absent if isinstance(found, Absent)}
    assert verdicts == {
        digests["erased"]: Absence.ERASED,
        digests["quarantined"]: Absence.QUARANTINED,
        digests["lost"]: Absence.LOST,
        digests["again"]: Absence.LOST,
        digests["named"]: Absence.ERASED,
        digests["late"]: Absence.LOST,
    }
    assert list(verdicts) == sorted(verdicts)
    size, _ = await log.head()
    assert counted == Checked(entries=size, blobs=7, there=1)


class StoresLate(MemoryContentStore):
    """Something is stored and named while the check has listed the store and not read the log yet."""

    late = b""

    def stored(self):  # type: ignore[no-untyped-def]
        listed = super().stored()

        async def and_then():  # type: ignore[no-untyped-def]
            async for each in listed:
                yield each
            await self.store(self.late)

        return and_then()


async def test_what_is_stored_during_the_check_is_not_called_lost() -> None:
    log, content = MemoryEventLog(), StoresLate()
    content.late = b"late"
    await log.append([principal_created("p-1", b"late")])
    [counted] = [found async for found in check_blobs(content, log, MemorySessionStore(ManualClock()))]
    assert isinstance(counted, Checked)
    assert (counted.blobs, counted.there) == (1, 1)


async def test_a_digest_that_never_was_a_blob_is_not_missed() -> None:
    """Entries hold digests of other things in their data: only their blobs count."""
    log, content = MemoryEventLog(), MemoryContentStore()
    await log.append([blob_erased("sha256:" + "0" * 64, 1)])
    found = [each async for each in check_blobs(content, log, MemorySessionStore(ManualClock()))]
    assert [each.absence for each in found if isinstance(each, Absent)] == [Absence.ERASED]


class ArchivedLog(MemoryEventLog):
    """Its first entries are archived: it knows what they name, and has those that speak of blobs."""

    upto = 0

    async def query(self, where=EventFilter(), *, after=-1, **options):  # type: ignore[no-untyped-def]
        if after + 1 < self.upto and not (where.types and where.types <= STAYING):
            raise Archived("it is in the archive", upto=self.upto)
        return await super().query(where, after=after, **options)

    async def archived_references(self) -> ArchivedReferences:
        rows = [row for row, _ in self._log.rows[: self.upto]]
        needed = {
            octets_of(digest)
            for row in rows
            if row.entry["type"] not in SPEAKS_OF_BLOBS
            for digest in row.entry["blobs"]
        }
        return ArchivedReferences(self.upto, frozenset(references_of(rows)), frozenset(needed))


async def test_what_archived_entries_need_is_looked_up_as_well() -> None:
    log, content, sessions = ArchivedLog(), MemoryContentStore(), MemorySessionStore(ManualClock())
    needs = {name: principal_created(f"p-{name}", octets) for name, octets in DOCUMENTS.items()}
    digests = {name: need.blobs[0] for name, need in needs.items()}
    await log.append([needs[name] for name in DOCUMENTS if name != "late"])
    await log.append([blob_erased(digests[name], 1) for name in ("erased", "again")])
    await log.append([blob_quarantined(digests["quarantined"], 1)])
    log.upto, _ = await log.head()
    await log.append([needs["late"], blob_erased(digests["named"], 1)])
    await sessions.own_blob("team", digests["again"])
    await content.store(DOCUMENTS["there"])
    *absent, counted = [found async for found in check_blobs(content, log, sessions)]
    verdicts = {found.digest: (found.absence, found.seq) for found in absent if isinstance(found, Absent)}
    size, _ = await log.head()
    assert verdicts == {
        digests["erased"]: (Absence.ERASED, log.upto - 3),
        digests["quarantined"]: (Absence.QUARANTINED, log.upto - 1),
        digests["lost"]: (Absence.LOST, None),
        digests["again"]: (Absence.LOST, None),
        digests["named"]: (Absence.ERASED, size - 1),
        digests["late"]: (Absence.LOST, size - 2),
    }
    (lost,) = [each for each in absent if isinstance(each, Absent) and each.digest == digests["lost"]]
    assert "is lost: an archived entry names it" in lost.message
    assert counted == Checked(entries=size, blobs=7, there=1)
