"""The backends of ``ContentStore`` that its contract is tested on, and hands that reach into them."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from tests.s3server import BUCKET, S3Server

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.s3.contentstore import S3ContentStore
from triplane.conformance.contentsubject import Opening, Subject


@asynccontextmanager
async def _filesystem(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    folder: Path = request.getfixturevalue("tmp_path") / uuid.uuid4().hex
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        assert Path(where).is_relative_to(folder / "quarantine")
        assert Path(where).exists()
        reported.append(digest)

    async def tamper(digest: str, content: bytes) -> None:
        digits = digest.removeprefix("sha256:")
        path = folder / "blobs" / "sha256" / digits[:2] / digits[2:4] / digits
        path.chmod(0o644)
        path.write_bytes(content)

    store = FilesystemContentStore(folder, on_quarantine=report)
    yield Subject(store, FilesystemContentStore(folder), tamper, reported)


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        assert where == "memory"
        reported.append(digest)

    async def tamper(digest: str, content: bytes) -> None:
        store._blobs[digest] = content

    store = MemoryContentStore(on_quarantine=report)
    yield Subject(store, store, tamper, reported)


@asynccontextmanager
async def _s3(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: S3Server = request.getfixturevalue("s3_server")
    async with s3_subject(server) as subject:
        yield subject


@asynccontextmanager
async def s3_subject(server: S3Server) -> AsyncIterator[Subject]:
    """A store under a prefix of its own."""
    place = server.place(uuid.uuid4().hex)
    hand = raw(server, place.prefix)
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        prefix = f"s3://{BUCKET}/{place.prefix}/"
        assert where.startswith(f"{prefix}quarantine/")
        await obstore.head_async(hand, where.removeprefix(prefix))
        reported.append(digest)

    async def tamper(digest: str, content: bytes) -> None:
        digits = digest.removeprefix("sha256:")
        async for page in obstore.list(hand, f"blobs/sha256/{digits[:2]}/{digits[2:4]}/{digits}"):
            for meta in page:
                await obstore.put_async(hand, meta["path"], content)

    store = S3ContentStore(place, on_quarantine=report, renew_seconds=0)
    other = S3ContentStore(place, renew_seconds=0)
    await store.open()
    await other.open()
    yield Subject(store, other, tamper, reported, tick=1.1)


def raw(server: S3Server, prefix: str) -> S3Store:
    """The bucket as anybody with its keys sees it."""
    place = server.place(prefix)
    return S3Store(
        BUCKET,
        prefix=prefix,
        config={
            "endpoint": place.endpoint or "",
            "access_key_id": place.access_key or "",
            "secret_access_key": place.secret_key or "",
            "region": place.region,
        },
        client_options={"allow_http": True},
    )


BACKENDS = [
    pytest.param(_filesystem, id="filesystem"),
    pytest.param(_memory, id="memory"),
    pytest.param(_s3, id="s3"),
]


@pytest.fixture(params=BACKENDS)
def opening(request: pytest.FixtureRequest) -> Opening:
    """What the suites of ``triplane.conformance`` ask for: each backend that is shipped."""
    return lambda: request.param(request)
