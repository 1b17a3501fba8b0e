"""Which key the operator signs with, and what the log tells of it: before, during and after a rotation."""

import asyncio

import pytest

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.signingkeys import MemorySigningKeys
from triplane.audit.keys import KEY_EVENTS, TrustedKey, keys_of
from triplane.audit.model import EventBody, EventFilter, EventSubject
from triplane.controllers.signing import OperatorKeys
from triplane.errors import Unavailable


class BrokenLog(MemoryEventLog):
    """A log that cannot be appended to for a while."""

    broken = False

    async def append(self, bodies):  # type: ignore[no-untyped-def]
        if self.broken:
            raise Unavailable("away")
        return await super().append(bodies)


async def told(log: MemoryEventLog) -> tuple[TrustedKey, ...]:
    return keys_of(await log.query(EventFilter(types=KEY_EVENTS)))


def note(number: int) -> EventBody:
    return EventBody(f"task.placed/t/{number}", "task.placed", "system", "system", EventSubject("Task", "n", "t", "t"))


async def test_a_key_is_told_of_before_it_signs_and_only_once() -> None:
    log, files = MemoryEventLog(), MemorySigningKeys()
    keys = OperatorKeys(files, log)
    async with keys.signer() as signer:
        (key,) = await told(log)
        assert key.key_id == signer.key_id
    async with keys.signer():
        pass
    async with OperatorKeys(files, log).signer():  # the next process
        pass
    assert len(await log.query(EventFilter(types=KEY_EVENTS))) == 1


async def test_nothing_is_signed_with_a_key_the_log_could_not_be_told_of() -> None:
    log = BrokenLog()
    keys = OperatorKeys(MemorySigningKeys(), log)
    log.broken = True
    with pytest.raises(Unavailable):
        async with keys.signer():
            pytest.fail("it signed")
    log.broken = False
    async with keys.signer() as signer:
        assert [key.key_id for key in await told(log)] == [signer.key_id]


async def test_a_rotation_is_seen_without_a_restart_and_the_old_key_retired_and_destroyed() -> None:
    log, files = MemoryEventLog(), MemorySigningKeys()
    keys = OperatorKeys(files, log)
    async with keys.signer() as old:
        pass
    new = files.rotate()
    async with keys.signer() as signer:
        assert signer.key_id == new.key_id
    first, second = await told(log)
    assert (first.key_id, second.key_id) == (old.key_id, new.key_id)
    assert first.retired is not None
    assert first.retired > second.created
    assert second.retired is None
    assert files.list_ids() == [new.key_id]


async def test_what_is_on_its_way_still_bears_the_old_key_and_it_is_retired_behind_it() -> None:
    log, files = MemoryEventLog(), MemorySigningKeys()
    keys = OperatorKeys(files, log)
    async with keys.signer() as old:
        new = files.rotate()
        async with keys.signer() as signer:  # another Task, meanwhile
            assert signer.key_id == new.key_id
        assert [key.retired for key in await told(log)] == [None, None]
        (receipt,) = await log.append([note(1)])
    await keys.follow()
    first, second = await told(log)
    assert first.covers(receipt.seq)
    assert first.retired is not None
    assert second.retired is None
    assert old.key_id not in files.list_ids()


async def test_a_restart_retires_what_the_last_process_left() -> None:
    log, files = MemoryEventLog(), MemorySigningKeys()
    async with OperatorKeys(files, log).signer():
        files.rotate()  # killed here
    await OperatorKeys(files, log).follow()
    first, second = await told(log)
    assert first.retired is not None
    assert second.retired is None


async def test_two_rotations_nobody_saw_leave_one_key() -> None:
    log, files = MemoryEventLog(), MemorySigningKeys()
    keys = OperatorKeys(files, log)
    await keys.follow()
    files.rotate()
    last = files.rotate()
    await keys.follow()
    assert [key.key_id for key in await told(log) if key.retired is None] == [last.key_id]
    assert len(await told(log)) == 2
    assert files.list_ids() == [last.key_id]


async def test_a_retired_key_that_comes_back_from_a_backup_signs_nothing() -> None:
    log = MemoryEventLog()
    await OperatorKeys(restored := MemorySigningKeys(), log).follow()
    old = restored.current()
    files = MemorySigningKeys()
    files.rotate()
    await OperatorKeys(files, log).follow()
    backup = MemorySigningKeys()
    assert backup.current().key_id == old.key_id
    backup._seed = b"after the restore"
    async with OperatorKeys(backup, log).signer() as signer:
        assert signer.key_id not in (old.key_id, files.current().key_id)
    assert [key.key_id for key in await told(log) if key.retired is None] == [signer.key_id]


async def test_many_at_once_tell_of_a_key_once() -> None:
    log = MemoryEventLog()
    keys = OperatorKeys(MemorySigningKeys(), log)
    await asyncio.gather(*(keys.follow() for _ in range(20)))
    assert len(await log.query(EventFilter(types=KEY_EVENTS))) == 1
