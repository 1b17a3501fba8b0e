"""Every blob that the log names is looked up, and what is not there is told apart."""

from tests.contract.session_world import ManualClock

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.controllers.blobcheck import Checked, check_blobs
from triplane.domain.absence import Absence, Absent
from triplane.domain.events import blob_erased, blob_quarantined, principal_created

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
