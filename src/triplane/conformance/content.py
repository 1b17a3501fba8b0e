"""The contract of ``ContentStore``: what may be stored, what comes back, what is refused and named."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from triplane.conformance.contentsubject import LARGE, MISSING, Opening, Subject, digests, read, sha256, stream
from triplane.errors import BlobMissing, Corrupt, DigestMismatch, InvalidDigest, TooLarge


@pytest.fixture
async def subject(opening: Opening) -> AsyncIterator[Subject]:
    """One store, empty."""
    async with opening() as made:
        yield made


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x", id="one octet"),
        pytest.param(b"\x00\xff\r\n" * 100, id="binary"),
        pytest.param(LARGE, id="several chunks"),
        pytest.param(bytes(1 << 20), id="exactly one chunk"),
        pytest.param(bytes(2 << 20), id="exactly two chunks"),
    ],
)
async def test_what_is_stored_can_be_resolved_under_its_digest(subject: Subject, content: bytes) -> None:
    digest = await subject.store.store(content)
    assert digest == sha256(content)
    assert await read(subject.store, digest) == content
    assert await subject.store.size(digest) == len(content)
    assert await subject.store.exists(digest)


async def test_a_stream_is_stored_as_its_concatenation(subject: Subject) -> None:
    chunks = [LARGE[start : start + 100_003] for start in range(0, len(LARGE), 100_003)] + [b"", b"end"]
    digest = await subject.store.store(stream(chunks), expect=sha256(LARGE + b"end"), limit=len(LARGE) + 3)
    assert await read(subject.store, digest) == LARGE + b"end"


async def test_storing_again_changes_nothing(subject: Subject) -> None:
    first = await subject.store.store(b"same")
    assert await subject.store.store(stream([b"sa", b"me"])) == first
    assert await digests(subject.store) == [first]
    assert subject.reported == []


@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
async def test_content_of_another_digest_than_expected_is_refused_and_both_are_named(
    subject: Subject, streamed: bool
) -> None:
    content = stream([b"some", b"thing"]) if streamed else b"something"
    with pytest.raises(DigestMismatch) as refused:
        await subject.store.store(content, expect=sha256(b"other"))
    assert refused.value.actual == sha256(b"something")
    assert sha256(b"something") in str(refused.value)
    assert sha256(b"other") in str(refused.value)
    assert await digests(subject.store) == []


@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
async def test_content_over_the_limit_is_refused_and_nothing_is_left(subject: Subject, streamed: bool) -> None:
    def content() -> bytes | AsyncIterator[bytes]:
        return stream([b"12345", b"67890"]) if streamed else b"1234567890"

    with pytest.raises(TooLarge, match="9 octets"):
        await subject.store.store(content(), limit=9)
    assert await digests(subject.store) == []
    assert not await subject.store.exists(sha256(b"1234567890"))
    assert await subject.store.store(content(), limit=10) == sha256(b"1234567890")


async def test_a_source_that_fails_leaves_nothing(subject: Subject) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield LARGE
        raise ConnectionResetError("the sender is gone")

    with pytest.raises(ConnectionResetError):
        await subject.store.store(breaks())
    assert await digests(subject.store) == []


async def test_a_cancelled_store_leaves_nothing_and_harms_no_later_one(subject: Subject) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            begun.set()
            yield bytes(300_000)
            await asyncio.sleep(0)

    task = asyncio.create_task(subject.store.store(endless(), limit=1 << 28))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await digests(subject.store) == []
    assert await read(subject.store, await subject.store.store(b"next")) == b"next"


async def test_a_reader_may_stop_half_way(subject: Subject) -> None:
    digest = await subject.store.store(LARGE)
    chunks = subject.store.resolve(digest)
    assert LARGE.startswith(await anext(chunks))
    await chunks.aclose()  # type: ignore[attr-defined]
    assert await read(subject.store, digest) == LARGE


async def test_what_is_not_there_is_missing(subject: Subject) -> None:
    assert not await subject.store.exists(MISSING)
    assert not await subject.store.delete(MISSING)
    with pytest.raises(BlobMissing, match=MISSING):
        await subject.store.size(MISSING)
    with pytest.raises(BlobMissing, match=MISSING):
        await read(subject.store, MISSING)


async def test_a_deleted_blob_is_gone_and_can_be_stored_again(subject: Subject) -> None:
    digest = await subject.store.store(b"content")
    other = await subject.store.store(b"other")
    assert await subject.store.delete(digest)
    assert not await subject.store.delete(digest)
    assert not await subject.store.exists(digest)
    assert await digests(subject.store) == [other]
    with pytest.raises(BlobMissing):
        await read(subject.store, digest)
    assert await subject.store.store(b"content") == digest
    assert await read(subject.store, digest) == b"content"


async def test_digests_are_listed_in_ascending_order(subject: Subject) -> None:
    stored = [await subject.store.store(str(number).encode()) for number in range(60)]
    assert await digests(subject.store) == sorted(stored)


async def test_many_writers_of_one_content_all_succeed_and_leave_one_blob(subject: Subject) -> None:
    stored = await asyncio.gather(*(subject.store.store(stream([LARGE[:500_000]] * 2)) for _ in range(12)))
    assert len(set(stored)) == 1
    assert await digests(subject.store) == [stored[0]]
    assert await read(subject.store, stored[0]) == LARGE[:500_000] * 2


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param("sha256:" + "A" * 64, id="upper case"),
        pytest.param("sha512:" + "a" * 64, id="another algorithm"),
        pytest.param("sha256:" + "a" * 63, id="too short"),
        pytest.param("sha256:../../../../etc/passwd", id="a path"),
        pytest.param("a" * 64, id="no algorithm"),
        pytest.param("sha256:" + "a" * 64 + "\n", id="a newline behind"),
    ],
)
async def test_only_the_one_spelling_of_a_digest_is_accepted(subject: Subject, digest: str) -> None:
    with pytest.raises(InvalidDigest):
        await subject.store.store(b"x", expect=digest)
    with pytest.raises(InvalidDigest):
        await read(subject.store, digest)
    with pytest.raises(InvalidDigest):
        await subject.store.exists(digest)
    with pytest.raises(InvalidDigest):
        await subject.store.size(digest)
    with pytest.raises(InvalidDigest):
        await subject.store.delete(digest)
    assert await digests(subject.store) == []


DAMAGE = [
    pytest.param(lambda content: content[:-1], id="truncated"),
    pytest.param(lambda _: b"", id="emptied"),
    pytest.param(lambda content: content + b"!", id="longer"),
    pytest.param(lambda content: content[:-1] + bytes([content[-1] ^ 1]), id="one bit flipped"),
    pytest.param(lambda content: b"something else altogether" * 100_000, id="swapped"),
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("content", [b"a small blob", LARGE], ids=["small", "large"])
async def test_changed_content_is_never_read_as_whole_and_is_quarantined(
    subject: Subject, damage: Callable[[bytes], bytes], content: bytes
) -> None:
    digest = await subject.store.store(content)
    await subject.tamper(digest, damage(content))
    got = []
    with pytest.raises(Corrupt, match=digest):
        async for chunk in subject.store.resolve(digest):
            got.append(chunk)  # noqa: PERF401  # what came before the error matters
    assert b"".join(got) not in (content, damage(content)) or not damage(content)
    assert subject.reported == [digest]
    assert not await subject.store.exists(digest)
    assert await digests(subject.store) == []
    with pytest.raises(BlobMissing, match="quarantined"):
        await read(subject.store, digest)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_storing_over_changed_content_quarantines_it_and_heals_the_blob(
    subject: Subject, damage: Callable[[bytes], bytes]
) -> None:
    digest = await subject.store.store(b"the right content")
    await subject.tamper(digest, damage(b"the right content"))
    assert await subject.store.store(b"the right content") == digest
    assert subject.reported == [digest]
    assert await read(subject.store, digest) == b"the right content"
    assert await digests(subject.store) == [digest]


async def test_many_readers_of_one_bad_blob_quarantine_it_once(subject: Subject) -> None:
    digest = await subject.store.store(b"content")
    await subject.tamper(digest, b"contend")
    found = await asyncio.gather(*(read(subject.store, digest) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(error, Corrupt | BlobMissing) for error in found)
    assert Corrupt in {type(error) for error in found}
    assert subject.reported == [digest]
