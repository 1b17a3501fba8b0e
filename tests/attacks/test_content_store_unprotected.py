"""Rows 23, 24, 26 and 27 of the attack table on the content store in a folder: each attack first succeeds against a
store whose protection is taken out, then it is refused by name. Row 25 is in ``test_collection.py``; a store without
its temporary file, struck at every system call, in ``tests/faults/test_syscalls.py``.
"""

import os
from hashlib import sha256
from pathlib import Path

import pytest
from tests.contract.test_event_log import body

from triplane.adapters.filesystem import contentstore, shards, temporary
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.filesystem.shards import Shards
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.audit.entry import event_id
from triplane.domain.absence import Absence, why_absent
from triplane.errors import BlobMissing, Corrupt, InvalidDigest, TooLarge, Unavailable

pytestmark = pytest.mark.attacks

CONTENT, OTHER = b"the right content", b"what somebody else would like to be read"
DIGITS = sha256(CONTENT).hexdigest()
DIGEST = f"sha256:{DIGITS}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cas"


def leaf(root: Path) -> Path:
    return root / "blobs" / "sha256" / DIGITS[:2] / DIGITS[2:4] / DIGITS


def overwrite(root: Path, octets: bytes) -> None:
    leaf(root).chmod(0o644)
    leaf(root).write_bytes(octets)


async def read(store: FilesystemContentStore, digest: str = DIGEST) -> bytes:
    return b"".join([chunk async for chunk in store.resolve(digest)])


WRONG = pytest.mark.parametrize(
    "octets",
    [
        pytest.param(CONTENT[:-1], id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(OTHER, id="another blob's"),
        pytest.param(bytes([CONTENT[0] ^ 1]) + CONTENT[1:], id="one bit"),
    ],
)


@WRONG
async def test_23_what_is_read_unhashed_is_whatever_lies_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, octets: bytes
) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    overwrite(root, octets)
    with monkeypatch.context() as removed:
        removed.setattr(contentstore._Reader, "digits", property(lambda _: DIGITS))
        assert await read(store) == octets
    with pytest.raises(Corrupt) as refused:
        await read(store)
    assert f"{DIGEST} at {leaf(root)} holds sha256:{sha256(octets).hexdigest()}" in str(refused.value)
    assert "moved to" in str(refused.value)
    assert "Store the right content again" in str(refused.value)


@WRONG
async def test_23_a_store_that_does_not_look_acknowledges_what_is_not_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, octets: bytes
) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    overwrite(root, octets)
    with monkeypatch.context() as removed:
        removed.setattr(temporary, "verify_blob", lambda shards_, digits: (shards_.stat_blob(digits), True))
        assert await store.store(CONTENT) == DIGEST, "acknowledged"
        assert leaf(root).read_bytes() == octets, "and not stored"
    assert await store.store(CONTENT) == DIGEST
    assert await read(store) == CONTENT
    (aside,) = (root / "quarantine").iterdir()
    assert aside.read_bytes() == octets


async def test_24_an_error_of_fsync_that_nobody_looks_at_acknowledges_what_a_crash_may_take(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, os.strerror(5))

    store = FilesystemContentStore(root)
    with monkeypatch.context() as broken_disk:
        broken_disk.setattr(os, "fsync", fails)
        with pytest.raises(Unavailable) as refused:
            await store.store(CONTENT)
        assert "Input/output error" in str(refused.value)
        assert "nothing partial was kept. Free space or mend the disk, then try again" in str(refused.value)
        assert not leaf(root).exists()
        broken_disk.setattr(os, "fsync", lambda _: None)  # the protection removed: the error passed over
        assert await store.store(CONTENT) == DIGEST


OUTSIDE = "sha256:././../../../secret"
"""Made so that its folders are ``./`` and ``./``, and its file one outside of the store."""


async def test_26_a_path_of_an_unparsed_digest_leads_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    secret = root.parent / "secret"
    secret.write_bytes(b"of somebody else")
    with pytest.raises(InvalidDigest, match=r"is not a digest; write sha256: and 64 lowercase hexadecimal digits"):
        await read(store, OUTSIDE)
    assert secret.read_bytes() == b"of somebody else"
    with monkeypatch.context() as removed:
        removed.setattr(contentstore, "parse_digest", lambda text: text.removeprefix("sha256:"))
        assert await store.size(OUTSIDE) == len(b"of somebody else")
        assert await store.delete(OUTSIDE)
    assert not secret.exists()


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(DIGEST.upper(), id="upper case"),
        pytest.param(f"md5:{DIGITS[:32]}", id="another algorithm"),
        pytest.param(f"sha512:{DIGITS}{DIGITS}", id="a longer one"),
        pytest.param(f"{DIGEST}\n", id="a line end"),
        pytest.param(f"sha256:{'../' * 21}x", id="a traversal of the right length"),
        pytest.param(f"sha256:{'٣' * 64}", id="digits of another script"),
    ],
)
async def test_26_no_other_spelling_names_a_blob(root: Path, digest: str) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    for ask in (store.size, store.exists, store.delete):
        with pytest.raises(InvalidDigest, match="is not a digest; write sha256:"):
            await ask(digest)
    assert await read(store) == CONTENT


async def test_26_a_linked_shard_that_is_followed_takes_the_blob_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemContentStore(root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "blobs" / "sha256" / DIGITS[:2]).symlink_to(elsewhere)
    with pytest.raises(Corrupt) as refused:
        await store.store(CONTENT)
    assert f"{root / 'blobs' / 'sha256' / DIGITS[:2]} is not a folder of the content store but a link" in str(
        refused.value
    )
    assert "Find out who put it there and remove it" in str(refused.value)
    assert list(elsewhere.iterdir()) == []
    with monkeypatch.context() as removed:
        removed.setattr(shards, "_FOLDER_FLAGS", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        await FilesystemContentStore(root).store(CONTENT)
    assert [path.read_bytes() for path in elsewhere.rglob(DIGITS)] == [CONTENT]


async def test_26_a_linked_leaf_that_is_followed_is_read_from_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content is right when it is looked at: what it is afterwards, its owner decides."""
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(CONTENT)
    leaf(root).unlink()
    leaf(root).symlink_to(elsewhere)
    with monkeypatch.context() as removed:
        removed.setattr(os, "O_NOFOLLOW", 0)
        assert await read(store) == CONTENT
    with pytest.raises(Corrupt, match=r"is not a regular file; links are never followed\. Find out who put it there"):
        await read(store)
    assert elsewhere.read_bytes() == CONTENT


async def test_26_without_a_cap_one_blob_takes_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge, match="larger than 1000 octets; send less or raise the limit"):
        await FilesystemContentStore(root, cap=1000).store(bytes(1001))
    assert not [path for path in root.rglob("*") if path.is_file()]
    with monkeypatch.context() as removed:
        removed.setattr(contentstore, "min", lambda *_: 1 << 62, raising=False)
        digest = await FilesystemContentStore(root, cap=1000).store(bytes(1001), limit=1000)
    assert await FilesystemContentStore(root).size(digest) == 1001


@pytest.mark.parametrize(
    ("type_", "absence", "says"),
    [
        pytest.param("blob.erased", Absence.ERASED, "nothing is to be done", id="erased"),
        pytest.param("blob.quarantined", Absence.QUARANTINED, "store the right content again", id="quarantined"),
        pytest.param(None, Absence.LOST, "restore it from a backup and find out who removed it", id="lost"),
    ],
)
async def test_27_without_the_log_erased_quarantined_and_lost_look_the_same(
    root: Path, type_: str | None, absence: Absence, says: str
) -> None:
    log, store = MemoryEventLog(), FilesystemContentStore(root)
    await store.store(CONTENT)
    (needs,) = await log.append([body(1, blobs=(DIGEST,))])
    if type_ is not None:
        about = body(2, id=event_id(type_, "uid-2", 1), type=type_, data={"digest": DIGEST}, blobs=())
        (told,) = await log.append([about])
    Shards(root).remove(DIGITS)
    with pytest.raises(BlobMissing) as missing:
        await read(store)
    assert "it may have been erased: see the log" in str(missing.value), "the store alone cannot tell"
    entries = await log.query()
    found = why_absent(
        DIGEST,
        [entry for entry in entries if entry.entry["data"].get("digest") == DIGEST],
        [entry for entry in entries if DIGEST in entry.entry["blobs"]],
    )
    assert (found.absence, found.seq) == (absence, needs.seq if type_ is None else told.seq)
    assert DIGEST in found.message
    assert f"log entry {found.seq}" in found.message
    assert says in found.message
