"""The contract of ``KeptContent``: ages, holds, collection, the collector's lease."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from triplane.conformance.contentsubject import LARGE, MISSING, Opening, Subject, digests, read, sha256, stream
from triplane.errors import BlobMissing, Conflict, InvalidDigest, InvalidInput
from triplane.ports import KeptContent


@pytest.fixture
async def subject(opening: Opening) -> AsyncIterator[Subject]:
    """One store, empty."""
    async with opening() as made:
        yield made


async def now(store: KeptContent) -> datetime:
    async with store.lease(60) as lease:
        return lease.began


async def later(store: KeptContent) -> datetime:
    """A time by which everything stored so far is old."""
    return await now(store) + timedelta(hours=1)


async def test_stored_lists_every_blob_with_size_and_time(subject: Subject) -> None:
    began = await now(subject.store)
    stored = [await subject.store.store(bytes(number)) for number in range(1, 40)]
    ended = await now(subject.store)
    listed = [blob async for blob in subject.store.stored()]
    assert [blob.digest for blob in listed] == sorted(stored)
    assert sorted(blob.size for blob in listed) == list(range(1, 40))
    # Backends tell time by the second.
    assert all(began - timedelta(seconds=2) <= blob.stored_at <= ended + timedelta(seconds=2) for blob in listed)


async def test_an_old_blob_is_collected_and_can_be_stored_again(subject: Subject) -> None:
    digest, other = await subject.store.store(LARGE), await subject.store.store(b"other")
    assert await subject.store.collect(digest, before=await later(subject.store))
    assert await digests(subject.store) == [other]
    with pytest.raises(BlobMissing, match=digest):
        await read(subject.store, digest)
    assert await subject.store.store(LARGE) == digest
    assert await read(subject.store, digest) == LARGE


async def test_a_young_blob_is_not_collected(subject: Subject) -> None:
    digest = await subject.store.store(b"young")
    assert not await subject.store.collect(digest, before=await now(subject.store) - timedelta(hours=1))
    assert await read(subject.store, digest) == b"young"


async def test_nothing_is_collected_where_nothing_is(subject: Subject) -> None:
    assert not await subject.store.collect(MISSING, before=await later(subject.store))
    with pytest.raises(InvalidDigest):
        await subject.store.collect("sha256:../..", before=await later(subject.store))


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "in parts"])
@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
async def test_storing_again_renews_the_age(subject: Subject, content: bytes, streamed: bool) -> None:
    digest = await subject.store.store(content)
    [first] = [blob async for blob in subject.store.stored()]
    await asyncio.sleep(1.1)  # more than any backend leaves a blob unrenewed for
    assert await subject.other.store(stream([content]) if streamed else content) == digest
    [second] = [blob async for blob in subject.store.stored()]
    assert second.stored_at > first.stored_at
    assert not await subject.store.collect(digest, before=first.stored_at + timedelta(microseconds=1))
    assert await read(subject.store, digest) == content


async def test_a_blob_that_is_read_is_not_collected_and_is_read_to_its_end(subject: Subject) -> None:
    digest = await subject.store.store(LARGE)
    chunks = subject.store.resolve(digest)
    got = [await anext(chunks)]
    assert not await subject.store.collect(digest, before=await later(subject.store))
    got += [chunk async for chunk in chunks]
    assert b"".join(got) == LARGE
    assert await subject.store.collect(digest, before=await later(subject.store))


async def test_content_that_is_stored_again_survives_a_collector_at_the_same_moment(subject: Subject) -> None:
    """Whatever the order of the two, an acknowledged store is there afterwards."""
    content = bytes(400_000)
    digest = await subject.store.store(content)
    for number in range(4):
        await asyncio.sleep(1.1)
        [old] = [blob async for blob in subject.store.stored()]
        before = old.stored_at + timedelta(microseconds=1)

        async def collect(delay: float, before: datetime = before) -> None:
            await asyncio.sleep(delay)
            await subject.store.collect(digest, before=before)

        stored, *_ = await asyncio.gather(
            subject.other.store(stream([content[:200_000], content[200_000:]])),
            *(collect(each * (number + 1) / 1000) for each in range(6)),
        )
        assert stored == digest
        assert await read(subject.store, digest) == content


async def test_a_held_blob_is_not_collected_until_the_last_hold_ends(subject: Subject) -> None:
    digest = await subject.store.store(b"held")
    await subject.store.hold(digest, "backup", 3600)
    await subject.other.hold(digest, "export-1", 3600)
    assert await subject.store.held() == {digest}
    assert not await subject.store.collect(digest, before=await later(subject.store))
    assert await subject.store.release(digest, "backup")
    assert not await subject.store.release(digest, "backup")
    assert not await subject.store.collect(digest, before=await later(subject.store))
    assert await subject.other.release(digest, "export-1")
    assert await subject.store.held() == frozenset()
    assert await subject.store.collect(digest, before=await later(subject.store))


async def test_a_hold_ends_by_itself_and_can_be_prolonged(subject: Subject) -> None:
    short, long = await subject.store.store(b"short"), await subject.store.store(b"long")
    await subject.store.hold(short, "backup", subject.tick)
    await subject.store.hold(long, "backup", subject.tick)
    await subject.store.hold(long, "backup", 3600)
    await asyncio.sleep(subject.tick * 2)
    assert await subject.store.held() == {long}
    assert not await subject.store.release(short, "backup")
    assert await subject.store.collect(short, before=await later(subject.store))
    assert not await subject.store.collect(long, before=await later(subject.store))


async def test_a_hold_does_not_bar_erasure(subject: Subject) -> None:
    digest = await subject.store.store(b"to be erased")
    await subject.store.hold(digest, "backup", 3600)
    assert await subject.store.delete(digest)
    assert not await subject.store.exists(digest)


async def test_what_is_not_there_cannot_be_held(subject: Subject) -> None:
    with pytest.raises(BlobMissing, match=MISSING):
        await subject.store.hold(MISSING, "backup", 60)
    assert await subject.store.held() == frozenset()


@pytest.mark.parametrize("holder", ["", "Backup", "a/b", "..", "a" * 64, "-a", "a\n"])
async def test_only_plain_names_hold(subject: Subject, holder: str) -> None:
    digest = await subject.store.store(b"x")
    with pytest.raises(InvalidInput):
        await subject.store.hold(digest, holder, 60)
    with pytest.raises(InvalidInput):
        await subject.store.release(digest, holder)


async def test_a_store_belongs_to_the_log_that_asked_first(subject: Subject) -> None:
    assert await subject.store.owner("localhost/first") == "localhost/first"
    for store in (subject.store, subject.other):
        assert await store.owner("localhost/second") == "localhost/first"


async def test_of_many_that_ask_whose_store_it_is_all_hear_the_same(subject: Subject) -> None:
    stores = [subject.store, subject.other] * 4
    heard = await asyncio.gather(*(store.owner(f"localhost/{number}") for number, store in enumerate(stores)))
    assert len(set(heard)) == 1


async def test_two_collectors_never_have_the_lease(subject: Subject) -> None:
    async with subject.store.lease(60) as lease:
        with pytest.raises(Conflict, match="another collector"):
            async with subject.other.lease(60):
                pass
        await lease.renew()
    async with subject.other.lease(60) as lease:
        await lease.renew()


async def test_a_collector_and_a_scrubber_are_not_in_each_others_way(subject: Subject) -> None:
    async with subject.store.lease(60), subject.other.lease(60, "scrubber") as scrubbing:
        await scrubbing.renew()
        with pytest.raises(Conflict, match="another scrubber"):
            async with subject.store.lease(60, "scrubber"):
                pass


async def test_of_many_that_want_the_lease_one_gets_it(subject: Subject) -> None:
    inside = most = 0

    async def take(store: KeptContent) -> bool:
        nonlocal inside, most
        try:
            async with store.lease(60):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.2)
                inside -= 1
        except Conflict:
            return False
        return True

    took = await asyncio.gather(*(take(store) for store in [subject.store, subject.other] * 4))
    assert most == 1
    assert took.count(True) == 1


async def test_a_collector_that_fails_gives_the_lease_back(subject: Subject) -> None:
    with pytest.raises(ZeroDivisionError):
        async with subject.store.lease(60):
            raise ZeroDivisionError
    async with subject.other.lease(60):
        pass


async def test_tidying_removes_no_blob(subject: Subject) -> None:
    small = await subject.store.store(b"small")
    await subject.store.store(b"small")
    large = await subject.store.store(stream([LARGE]))
    await subject.store.hold(small, "backup", subject.tick)
    await asyncio.sleep(subject.tick * 2)
    assert await subject.store.tidy(before=await later(subject.store)) >= 1
    assert await digests(subject.store) == sorted([small, large])
    assert await read(subject.store, large) == LARGE
    assert await subject.store.tidy(before=await later(subject.store)) == 0


async def test_a_quarantined_blob_is_no_longer_listed(subject: Subject) -> None:
    digest = await subject.store.store(b"content")
    await subject.tamper(digest, b"contend")
    assert await subject.store.store(b"content") == digest
    assert subject.reported == [digest]
    assert [blob.size async for blob in subject.store.stored()] == [len(b"content")]
    assert [each async for each in subject.store.quarantined()] == [digest]
    assert sha256(b"content") == digest
