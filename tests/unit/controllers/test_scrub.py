"""Scrubbing: everything is read, at the rate, and every bad blob is named."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.session_world import ManualClock

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.controllers.scrub import scrub
from triplane.domain.scrubbing import Pace
from triplane.errors import InvalidInput, Unavailable

FAST = Pace(1e12)


async def filled(count: int, size: int = 10) -> tuple[MemoryContentStore, list[str], list[str]]:
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        reported.append(digest)

    store = MemoryContentStore(on_quarantine=report)
    stored = [await store.store(f"{number:0{size}d}".encode()) for number in range(count)]
    return store, sorted(stored), reported


async def test_a_whole_store_is_right() -> None:
    store, _, _ = await filled(20)
    done = await scrub(store, FAST, ManualClock())
    assert done.ok
    assert (done.checked, done.octets, done.next) == (20, 200, "")


async def test_every_bad_blob_is_named_quarantined_and_reported_once() -> None:
    store, stored, reported = await filled(20)
    bad = stored[3], stored[9], stored[19]
    for digest in bad:
        store._blobs[digest] = b"something else"
    done = await scrub(store, FAST, ManualClock())
    assert not done.ok
    assert done.bad == bad
    assert reported == list(bad)
    assert done.checked == 20
    again = await scrub(store, FAST, ManualClock())
    assert again.ok
    assert again.checked == 17


@pytest.mark.parametrize("rate", [100.0, 5_000.0], ids=["slow", "fast"])
async def test_it_reads_no_faster_than_the_rate(rate: float) -> None:
    store, _, _ = await filled(50, size=1000)
    clock = ManualClock()
    slept = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        clock.time += timedelta(seconds=seconds)

    done = await scrub(store, Pace(rate), clock, sleep=sleep)
    assert done.octets == 50_000
    assert slept == pytest.approx(50_000 / rate, rel=0.001)


async def test_a_share_at_a_time_covers_everything_once() -> None:
    store, _, _ = await filled(25)
    after, counts = "", []
    while True:
        done = await scrub(store, FAST, ManualClock(), after=after, most=10)
        counts.append(done.checked)
        if not done.next:
            break
        after = done.next
    assert counts == [10, 10, 5]


async def test_a_blob_that_cannot_be_read_does_not_end_the_scrub() -> None:
    store, stored, _ = await filled(5)
    whole = store.resolve

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        async def resolve(self, digest: str) -> object:
            if digest == stored[1]:
                raise Unavailable("an input/output error")
            async for chunk in whole(digest):
                yield chunk

    done = await scrub(Failing(), FAST, ManualClock())  # type: ignore[arg-type]
    assert done.unreadable == (stored[1],)
    assert not done.ok
    assert done.checked == 5


async def test_a_blob_that_goes_meanwhile_is_nobodys_loss() -> None:
    store, stored, _ = await filled(3)
    whole = store.resolve

    class Erasing:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        async def resolve(self, digest: str) -> object:
            await store.delete(stored[2])
            async for chunk in whole(digest):
                yield chunk

    done = await scrub(Erasing(), FAST, ManualClock())  # type: ignore[arg-type]
    assert done.ok
    assert done.checked == 2


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_never_ends_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput):
        Pace(rate)


async def test_what_is_no_file_in_a_blobs_place_is_bad(tmp_path: Path) -> None:
    content = FilesystemContentStore(tmp_path / "cas")
    digest = await content.store(b"content")
    (tmp_path / "elsewhere").write_bytes(b"content")
    place = tmp_path / "cas/blobs/sha256" / digest[7:9] / digest[9:11] / digest[7:]
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")
    found = await scrub(content, FAST, ManualClock())
    assert (found.ok, found.bad) == (False, (digest,))
    assert (tmp_path / "elsewhere").read_bytes() == b"content"
    assert not place.is_symlink(), "moved aside"
