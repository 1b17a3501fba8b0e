"""What the content store in a bucket says when the service fails, and that its memory does not grow with a blob."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from tests.s3server import S3Server, running_s3

from triplane.adapters.s3.bucket import Bucket, Found, S3Place
from triplane.adapters.s3.contentstore import MOST_COPIED, S3ContentStore
from triplane.errors import InvalidInput, Unavailable

MEMORY = """
import asyncio, resource, sys
from triplane.adapters.s3.bucket import S3Place
from triplane.adapters.s3.contentstore import S3ContentStore

async def content(mebibytes):
    for number in range(mebibytes):
        yield number.to_bytes(4, "big") * (1 << 18)

async def main(port, prefix):
    place = S3Place("triplane", prefix=prefix, endpoint=f"http://127.0.0.1:{port}", access_key="triplane-test",
                    secret_key="not-a-secret", allow_http=True)
    store = S3ContentStore(place)
    await store.open()
    async def round(mebibytes):
        digest = await store.store(content(mebibytes))
        async for _ in store.resolve(digest):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(await round(48), await round(400))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_memory_does_not_grow_with_the_size_of_a_blob(s3_server: S3Server) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(s3_server.port), uuid.uuid4().hex],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    small, large = map(int, ran.stdout.split())
    assert large - small < 64, f"{small} MiB with a blob of 48 MiB, {large} MiB with one of 400 MiB"


async def test_a_service_that_is_away_is_unavailable_and_comes_back() -> None:
    with running_s3() as server:
        store = S3ContentStore(server.place("p"))
        await store.open()
        digest = await store.store(b"content")
    for call in (
        store.store(b"other"), store.exists(digest), store.size(digest), store.delete(digest), store.held(),
        store.open(),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match=r"s3://triplane/p.*try again"):
            await call


async def test_wrong_keys_and_buckets_are_told_when_the_store_is_opened(s3_server: S3Server) -> None:
    right = s3_server.place("p")
    for place in (
        S3Place(right.bucket, endpoint=right.endpoint, access_key=right.access_key, secret_key="x", allow_http=True),
        S3Place("no-such-bucket", endpoint=right.endpoint, access_key=right.access_key, secret_key=right.secret_key,
                allow_http=True),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match=f"s3://{place.bucket}"):
            await S3ContentStore(place).open()


def _stale_head(monkeypatch: pytest.MonkeyPatch) -> None:
    async def head(*_: object) -> None:
        return None

    monkeypatch.setattr(Bucket, "head", head)


def _stale_list(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> AsyncIterator[Found]:
        for found in ():
            yield found

    monkeypatch.setattr(Bucket, "list", nothing)


def _stale_get(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(*_: object) -> tuple[bytes, str]:
        return b"first", ""

    monkeypatch.setattr(Bucket, "get", get)


def _no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def put_if(bucket: Bucket, key: str, content: bytes, tag: str | None) -> str:
        await bucket.put(key, content)
        return ""

    monkeypatch.setattr(Bucket, "put_if", put_if)


def _deleted_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete(*_: object) -> None:
        return None

    monkeypatch.setattr(Bucket, "delete", delete)


@pytest.mark.parametrize(
    ("weaken", "told"),
    [
        (_stale_head, "not strongly consistent"),
        (_stale_list, "not strongly consistent"),
        (_stale_get, "earlier content"),
        (_no_conditions, "condition of the request does not hold"),
        (_deleted_stays, "after it was deleted"),
    ],
    ids=["new objects appear late", "listings are late", "old content is shown", "no conditions", "deletions are late"],
)
async def test_a_service_that_is_not_what_is_relied_upon_is_refused_when_the_store_is_opened(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, weaken: Callable[[pytest.MonkeyPatch], None], told: str
) -> None:
    place = s3_server.place(uuid.uuid4().hex)
    await S3ContentStore(place).open()
    weaken(monkeypatch)
    with pytest.raises(InvalidInput, match=told):
        await S3ContentStore(place).open()


def test_a_cap_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(InvalidInput, match="more than S3 copies"):
        S3ContentStore(S3Place("b"), cap=MOST_COPIED + 1)


def test_keys_are_not_shown() -> None:
    assert "hidden" not in repr(S3Place("b", access_key="hidden", secret_key="hidden"))


async def test_two_stores_of_one_content_at_once_take_turns(s3_server: S3Server) -> None:
    store = S3ContentStore(s3_server.place(uuid.uuid4().hex))
    await store.open()

    async def content() -> AsyncIterator[bytes]:
        yield bytes(9 << 20)

    assert len(set(await asyncio.gather(*(store.store(content()) for _ in range(4))))) == 1
    assert len([found async for found in store._bucket.list("blobs")]) == 1
