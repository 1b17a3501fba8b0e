"""Row 25 of the fault table: the collector against writers, readers and its own twin.

Each race is arranged so that it happens every time, first against a store without the protection, where it loses an
acknowledged blob, then against the real one.
"""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.s3server import S3Server

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.filesystem.shards import Shards
from triplane.adapters.s3 import contentstore as s3_contentstore
from triplane.adapters.s3.bucket import Bucket
from triplane.adapters.s3.contentstore import S3ContentStore
from triplane.conformance.contentsubject import read, stream
from triplane.errors import BlobMissing, Conflict, Fenced
from triplane.ports import KeptContent

CONTENT = b"stored long ago, and again just now"


async def age_of(store: KeptContent) -> datetime:
    """A time by which what is stored now is old, and what is stored in a second is not."""
    [blob] = [blob async for blob in store.stored()]
    await asyncio.sleep(1.1)
    return blob.stored_at + timedelta(microseconds=1)


@pytest.fixture
async def bucket(s3_server: S3Server) -> S3ContentStore:
    store = S3ContentStore(s3_server.place(uuid.uuid4().hex), renew_seconds=0)
    await store.open()
    return store


async def paused_collector(
    store: S3ContentStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Any]
) -> None:
    """A collector that stands still between its last look and its first deletion, and something else goes on."""
    before = await age_of(store)
    delete = Bucket.delete

    async def late(bucket: Bucket, *keys: str) -> None:
        monkeypatch.setattr(Bucket, "delete", delete)
        await meanwhile()
        await delete(bucket, *keys)

    monkeypatch.setattr(Bucket, "delete", late)
    [digest] = [digest async for digest in store.list_digests()]
    await store.collect(digest, before=before)


@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
@pytest.mark.parametrize("protected", [False, True], ids=["one key per blob loses it", "no key is written twice"])
async def test_a_store_while_the_collector_of_another_process_stands_still(
    s3_server: S3Server, bucket: S3ContentStore, monkeypatch: pytest.MonkeyPatch, protected: bool, streamed: bool
) -> None:
    if not protected:
        monkeypatch.setattr(s3_contentstore, "token_hex", lambda _: "0")
    digest = await bucket.store(CONTENT)
    other = S3ContentStore(_place_of(bucket, s3_server), renew_seconds=0)
    await other.open()

    async def store_again() -> None:
        assert await other.store(stream([CONTENT]) if streamed else CONTENT) == digest

    await paused_collector(bucket, monkeypatch, store_again)
    if protected:
        assert await read(bucket, digest) == CONTENT
    else:
        with pytest.raises(BlobMissing):
            await read(bucket, digest)


async def test_a_hold_while_the_collector_of_another_process_stands_still(
    s3_server: S3Server, bucket: S3ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await bucket.store(CONTENT)
    other = S3ContentStore(_place_of(bucket, s3_server))
    await paused_collector(bucket, monkeypatch, lambda: other.hold(digest, "backup", 60))
    assert await read(bucket, digest) == CONTENT


def _place_of(store: S3ContentStore, server: S3Server) -> Any:
    return server.place(store._bucket.name.rpartition("/")[2])


@pytest.mark.parametrize("protected", [False, True], ids=["not renewed it is lost", "renewed it stays"])
async def test_a_store_of_what_is_about_to_be_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    store, other = FilesystemContentStore(tmp_path), FilesystemContentStore(tmp_path)
    digest = await store.store(CONTENT)
    before = await age_of(store)
    if not protected:
        monkeypatch.setattr(Shards, "renew", lambda *_: True)
    await other.store(CONTENT)
    assert await store.collect(digest, before=before) is not protected
    assert await store.exists(digest) is protected


@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
@pytest.mark.parametrize(
    "protected", [False, True], ids=["unlooked at it is lost", "looked at again it is stored anew"]
)
async def test_a_blob_collected_after_a_writer_found_it_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: bool, streamed: bool
) -> None:
    """The writer has read what is there and is about to say that it is stored; then the collector comes."""
    store, collector = FilesystemContentStore(tmp_path), FilesystemContentStore(tmp_path)
    digest = await store.store(CONTENT)
    before = await age_of(store)
    renew = Shards.renew

    def late(shards: Shards, digits: str, seen: Any) -> bool:
        monkeypatch.setattr(Shards, "renew", renew)
        assert asyncio.run(collector.collect(digest, before=before))
        return renew(shards, digits, seen) if protected else True

    monkeypatch.setattr(Shards, "renew", late)
    assert await store.store(stream([CONTENT]) if streamed else CONTENT) == digest
    assert await store.exists(digest) is protected


async def test_a_collector_that_was_paused_past_its_lease_is_fenced(
    s3_server: S3Server, bucket: S3ContentStore
) -> None:
    other = S3ContentStore(_place_of(bucket, s3_server))
    async with bucket.lease(0.5) as paused:
        with pytest.raises(Conflict):
            async with other.lease(60):
                pass
        await asyncio.sleep(2.5)
        async with other.lease(60) as taken:
            with pytest.raises(Fenced, match="taken over"):
                await paused.renew()
            await taken.renew()


COLLECT = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from triplane.adapters.filesystem.contentstore import FilesystemContentStore

async def main():
    store = FilesystemContentStore(Path(sys.argv[1]))
    async with store.lease(60) as lease:
        print(await store.collect(sys.argv[2], before=lease.began + timedelta(hours=1)))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "left"),
    [("cas.collect.before_unlink", True), ("cas.collect.after_unlink", False)],
    ids=["before", "after"],
)
async def test_a_collector_killed_at_the_removal_leaves_all_or_nothing_and_no_lease(
    tmp_path: Path, point: str, left: bool
) -> None:
    store = FilesystemContentStore(tmp_path)
    digest, other = await store.store(CONTENT), await store.store(b"other")
    killed = subprocess.run(
        [sys.executable, "-c", COLLECT, str(tmp_path), digest],
        env={**os.environ, "TRIPLANE_FAILPOINT": f"{point}:1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    assert await store.exists(digest) is left
    async with store.lease(60):
        assert await read(store, other) == b"other"
        assert await store.store(CONTENT) == digest
        assert await read(store, digest) == CONTENT


async def test_a_reader_in_another_process_keeps_its_blob(tmp_path: Path) -> None:
    """A lock on the file: nothing is written down, and it ends with the reader."""
    store = FilesystemContentStore(tmp_path)
    digest = await store.store(bytes(3 << 20))
    chunks = store.resolve(digest)
    await anext(chunks)
    command = [sys.executable, "-c", COLLECT, str(tmp_path), digest]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip() == "False"
    await chunks.aclose()  # type: ignore[attr-defined]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip() == "True"


async def test_uploads_that_were_broken_off_leave_nothing_in_the_bucket(bucket: S3ContentStore) -> None:
    async def breaks() -> Any:
        for _ in range(20):
            yield bytes(1 << 20)
        raise ConnectionResetError("the sender is gone")

    with pytest.raises(ConnectionResetError):
        await bucket.store(breaks())
    assert [found.key async for found in bucket._bucket.list("tmp")] == []
    assert [found.key async for found in bucket._bucket.list("blobs")] == []
