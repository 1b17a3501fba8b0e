"""Attacks and faults on the content store in a folder: rows 23 to 27 of the audit plane's table.

The collector's races (row 25) are in ``test_collection.py``, what users are told of blobs that are not there (row 27)
in ``tests/integration/gateway/test_blobs.py``.
"""

import asyncio
import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.errors import BlobMissing, Corrupt, TriplaneError, Unavailable

pytestmark = pytest.mark.attacks

CONTENT = b"the right content"
DIGITS = sha256(CONTENT).hexdigest()
DIGEST = f"sha256:{DIGITS}"
SHARD = Path("blobs", "sha256", DIGITS[:2], DIGITS[2:4])
LEAF = SHARD / DIGITS

STORE = """
import asyncio, sys
from pathlib import Path
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
content = {content}
print(asyncio.run(FilesystemContentStore(Path(sys.argv[1])).store(content)))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cas"


def store_in_process(root: Path, content: str = repr(CONTENT), **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STORE.format(content=content), str(root)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def read(store: FilesystemContentStore, digest: str = DIGEST) -> bytes:
    return b"".join([chunk async for chunk in store.resolve(digest)])


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def changes(folder: Path) -> dict[Path, tuple[int, ...]]:
    found = {path: path.lstat() for path in [folder, *folder.rglob("*")]}
    return {path: (each.st_ino, each.st_mode, each.st_mtime_ns, each.st_ctime_ns) for path, each in found.items()}


# What is on the disk, and in which order it got there


async def test_blobs_are_read_only_in_folders_of_the_owner_alone(root: Path) -> None:
    modes: list[int] = []

    async def content() -> AsyncIterator[bytes]:
        yield CONTENT
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in (root / "tmp").iterdir())

    assert await FilesystemContentStore(root).store(content()) == DIGEST
    assert modes == [0o600]
    assert files(root) == {str(LEAF)}
    assert stat.S_IMODE((root / LEAF).stat().st_mode) == 0o444
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


class Trace:
    """Stands before the calls of ``os`` that change the disk; may let the n-th of them fail."""

    CALLS = ("open", "write", "fsync", "fchmod", "link", "unlink", "mkdir", "rename", "stat", "fstat", "read")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fail_at = -1
        self._paths: dict[int, str] = {}
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._before(name, getattr(os, name)))

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*arguments: Any, **options: Any) -> Any:
            target = arguments[0] if arguments else ""
            if isinstance(target, int):
                target = os.readlink(f"/proc/self/fd/{target}")
            self.calls.append(f"{name} {Path(os.fspath(target)).name}")
            if len(self.calls) - 1 == self.fail_at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments, **options)

        return traced


async def test_everything_is_synced_before_it_is_acknowledged_and_linked_after_it_is_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemContentStore(root)
    trace = Trace(monkeypatch)
    await store.store(CONTENT)
    calls = [call for call in trace.calls if call.split()[0] not in ("open", "stat", "fstat", "read")]
    name = calls[0].split()[1]
    assert calls == [
        f"write {name}",
        f"fsync {name}",
        f"fchmod {name}",
        f"mkdir {DIGITS[:2]}",
        "fsync sha256",
        f"mkdir {DIGITS[2:4]}",
        f"fsync {DIGITS[:2]}",
        f"link {name}",
        f"fsync {DIGITS[2:4]}",
        f"unlink {name}",
    ]


def left_open(folder: Path) -> list[str]:
    """What this process has open below the folder; other descriptors are not this test's."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself is closed again
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [target for target in found if target.startswith(f"{folder}/")]


@pytest.mark.parametrize("streamed", [False, True], ids=["octets", "a stream"])
@pytest.mark.parametrize("there", [False, True, None], ids=["a new blob", "a blob that is there", "a bad blob there"])
async def test_whichever_call_fails_nothing_false_is_acknowledged_and_nothing_partial_is_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch, there: bool | None, streamed: bool
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield CONTENT

    failures = 0
    for fail_at in range(200):
        folder = root / str(fail_at)
        store = FilesystemContentStore(folder)
        if there is not False:
            await store.store(CONTENT)
        if there is None:
            (folder / LEAF).chmod(0o644)
            (folder / LEAF).write_bytes(b"bad")
        with monkeypatch.context() as patch:
            trace = Trace(patch)
            trace.fail_at = fail_at
            try:
                stored = await store.store(content() if streamed else CONTENT)
            except TriplaneError as error:
                stored, refusal = None, error
            failed = len(trace.calls) > fail_at
            at = trace.calls[fail_at] if failed else ""
        assert not left_open(root), at
        if stored is None:
            failures += 1
            assert isinstance(refusal, Unavailable)
            assert "Input/output error" in str(refusal)
        if there is None and (folder / LEAF).exists() and stored is None:
            assert (folder / LEAF).read_bytes() in (b"bad", CONTENT)
        else:
            assert files(folder) - {str(LEAF)} == {path for path in files(folder) if path[0] in "tq"}
        left = {path for path in files(folder) if path.startswith("tmp")}
        assert len(left) == (1 if at.startswith("unlink") else 0), at
        assert await store.store(CONTENT) == DIGEST
        assert await read(store) == CONTENT
        FilesystemContentStore(folder)
        assert not any(path.startswith("tmp") for path in files(folder))
        if not failed:
            break
    else:
        pytest.fail("the store made more than 200 calls")
    assert failures > 10


# 24: full disk, crash


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.errors import Unavailable
store = FilesystemContentStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
async def main():
    try:
        await store.store(bytes(3_000_000))
    except Unavailable as error:
        print("refused:", error)
    print("stored:", await store.store(b"small"))
    print("all:", [digest async for digest in store.list_digests()])
asyncio.run(main())
"""


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(root)], capture_output=True, text=True, check=True, timeout=60
    )
    refused, stored, listed = done.stdout.splitlines()
    assert refused.startswith("refused: content store at ")
    assert "File too large" in refused
    assert "Free space" in refused
    small = f"sha256:{sha256(b'small').hexdigest()}"
    assert stored == f"stored: {small}"
    assert listed == f"all: ['{small}']"
    assert len(files(root)) == 1


async def test_a_crash_before_the_link_leaves_no_blob_and_a_restart_sweeps(root: Path) -> None:
    crashed = store_in_process(root, TRIPLANE_FAILPOINT="cas.store.before_link:1")
    assert crashed.communicate(timeout=60)[0] == ""
    assert crashed.returncode == -signal.SIGKILL
    (left,) = files(root)
    assert left.startswith("tmp/")
    store = FilesystemContentStore(root)
    assert files(root) == set()
    assert not await store.exists(DIGEST)
    assert await store.store(CONTENT) == DIGEST


async def test_a_crash_after_the_link_leaves_a_whole_blob_and_a_restart_sweeps(root: Path) -> None:
    crashed = store_in_process(root, TRIPLANE_FAILPOINT="cas.store.after_link:1")
    assert crashed.communicate(timeout=60)[0] == ""
    assert crashed.returncode == -signal.SIGKILL
    assert len(files(root)) == 2
    store = FilesystemContentStore(root)
    assert files(root) == {str(LEAF)}
    assert await read(store) == CONTENT
    assert stat.S_IMODE((root / LEAF).stat().st_mode) == 0o444
    assert await store.store(CONTENT) == DIGEST


async def test_a_sweep_spares_the_file_of_a_living_writer(root: Path) -> None:
    store = FilesystemContentStore(root)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield CONTENT

    (root / "tmp" / "of-the-dead").write_bytes(b"half")
    writing = asyncio.create_task(store.store(content()))
    await begun.wait()
    FilesystemContentStore(root)
    (left,) = files(root)
    assert left != "tmp/of-the-dead"
    go_on.set()
    assert await writing == DIGEST


# 25: races


def test_processes_storing_one_content_at_once_all_succeed(root: Path) -> None:
    content = "bytes(range(256)) * 20_000"
    writers = [store_in_process(root, content) for _ in range(4)]
    answers = {writer.communicate(timeout=60) for writer in writers}
    assert answers == {(f"sha256:{sha256(bytes(range(256)) * 20_000).hexdigest()}\n", "")}
    assert len(files(root)) == 1


async def test_store_delete_and_resolve_racing_never_show_anything_but_the_whole(root: Path) -> None:
    content = bytes(range(256)) * 10_000
    stores = [FilesystemContentStore(root) for _ in range(3)]
    digest = await stores[0].store(content)
    seen = {"whole": 0, "missing": 0}

    async def write() -> None:
        for _ in range(25):
            assert await stores[0].store(content) == digest

    async def delete() -> None:
        for _ in range(25):
            await stores[1].delete(digest)
            await asyncio.sleep(0.002)

    async def resolve() -> None:
        for _ in range(40):
            try:
                assert await read(stores[2], digest) == content
                seen["whole"] += 1
            except BlobMissing:
                seen["missing"] += 1

    await asyncio.gather(write(), write(), delete(), resolve(), resolve())
    assert seen["whole"] > 0
    assert not {path for path in files(root) if not path.startswith("blobs")}


async def test_a_reader_of_bad_octets_never_quarantines_the_good_ones_that_replaced_them(root: Path) -> None:
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        reported.append(where)

    store = FilesystemContentStore(root, on_quarantine=report)
    for number in range(20):
        await store.store(CONTENT)
        (root / LEAF).chmod(0o644)
        (root / LEAF).write_bytes(b"bad %d" % number)

        async def read_bad() -> None:
            with pytest.raises((Corrupt, BlobMissing)):
                while True:
                    assert await read(store) == CONTENT

        reading = [asyncio.create_task(read_bad()) for _ in range(2)]
        await asyncio.sleep(0)
        await store.store(CONTENT)
        assert await read(store) == CONTENT
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    assert sorted(Path(where).read_bytes() for where in reported) == sorted(b"bad %d" % n for n in range(20))


# 26: links and other things in the tree


@pytest.mark.parametrize("depth", [1, 2, 3, 4], ids=["blobs", "sha256", "first shard", "second shard"])
async def test_a_linked_folder_is_refused_and_named_and_its_target_untouched(
    root: Path, tmp_path: Path, depth: int
) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    folder = root.joinpath(*LEAF.parts[:depth])
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = changes(elsewhere)
    attempts: list[Callable[[], Any]] = [
        lambda: store.store(CONTENT),
        lambda: read(store),
        lambda: store.exists(DIGEST),
        lambda: store.size(DIGEST),
        lambda: store.delete(DIGEST),
    ]
    for attempt in attempts:
        with pytest.raises(Corrupt) as refused:
            await attempt()
        assert str(folder) in str(refused.value)
        assert "links are never followed" in str(refused.value)
    with pytest.raises(Corrupt):
        assert [digest async for digest in store.list_digests()] == ["this is never reached"]
    assert changes(elsewhere) == before


@pytest.mark.parametrize("name", ["blobs", "tmp", "quarantine"])
def test_a_store_with_a_linked_folder_does_not_open(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("precious")
    root.mkdir()
    (root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match=name):
        FilesystemContentStore(root)
    assert (tmp_path / "elsewhere" / "precious").read_text() == "precious"


def _link(leaf: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(CONTENT)  # even one that leads to the right content
    leaf.symlink_to(elsewhere)


def _dangling(leaf: Path, elsewhere: Path) -> None:
    leaf.symlink_to(elsewhere)


def _pipe(leaf: Path, elsewhere: Path) -> None:
    os.mkfifo(leaf)


def _folder(leaf: Path, elsewhere: Path) -> None:
    leaf.mkdir()


@pytest.mark.parametrize("plant", [_link, _dangling, _pipe, _folder], ids=["link", "dangling link", "pipe", "folder"])
async def test_what_is_no_file_in_a_blobs_place_is_refused_and_moved_aside(
    root: Path, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    reported: list[str] = []

    async def report(digest: str, where: str) -> None:
        assert digest == DIGEST
        reported.append(where)

    store = FilesystemContentStore(root, on_quarantine=report)
    elsewhere = tmp_path / "elsewhere"
    for attempt in ("read", "store"):
        elsewhere.unlink(missing_ok=True)
        (root / SHARD).mkdir(parents=True, exist_ok=True)
        await store.delete(DIGEST)
        plant(root / LEAF, elsewhere)
        with pytest.raises(Corrupt, match="not a regular file"):
            await store.exists(DIGEST)
        async with asyncio.timeout(10):
            if attempt == "read":
                with pytest.raises(Corrupt, match=DIGEST):
                    await read(store)
                with pytest.raises(BlobMissing):
                    await read(store)
            else:
                assert await store.store(CONTENT) == DIGEST
                assert await read(store) == CONTENT
    assert len(reported) == 2
    assert all(os.path.lexists(where) for where in reported)
    assert not elsewhere.exists() or elsewhere.read_bytes() == CONTENT


async def test_a_link_over_a_good_blob_does_not_redirect_a_write(root: Path, tmp_path: Path) -> None:
    """An attacker who can write in the shard makes the blob's name a link to a file he wants overwritten."""
    store = FilesystemContentStore(root)
    (root / SHARD).mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (root / LEAF).symlink_to(victim)
    await store.store(CONTENT)
    assert victim.read_text() == "precious"
    assert not (root / LEAF).is_symlink()


async def test_foreign_names_in_the_tree_are_not_listed(root: Path) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    for name in ("README", DIGITS.upper(), "0" * 64, DIGITS + ".tmp"):
        (root / SHARD / name).write_text("")
    (root / "blobs" / "sha256" / "zz").mkdir()
    assert [digest async for digest in store.list_digests()] == [DIGEST]


# 23 and 27: what the messages tell apart


async def test_corrupt_quarantined_missing_and_erased_are_told_apart(root: Path) -> None:
    store = FilesystemContentStore(root)
    await store.store(CONTENT)
    (root / LEAF).chmod(0o644)
    (root / LEAF).write_bytes(b"swapped")
    with pytest.raises(Corrupt) as corrupt:
        await read(store)
    assert str(root / LEAF) in str(corrupt.value)
    assert f"sha256:{sha256(b'swapped').hexdigest()}" in str(corrupt.value)
    assert str(root / "quarantine") in str(corrupt.value)
    (aside,) = (root / "quarantine").iterdir()
    assert aside.read_bytes() == b"swapped"

    with pytest.raises(BlobMissing, match=f"quarantined.*{aside}"):
        await read(store)
    missing = f"sha256:{'0' * 64}"
    with pytest.raises(BlobMissing, match=f"no blob {missing}.*erased: see the log"):
        await read(store, missing)

    await store.store(CONTENT)
    assert await store.delete(DIGEST)
    with pytest.raises(BlobMissing, match="quarantined"):
        await read(store)
    aside.unlink()
    with pytest.raises(BlobMissing, match=f"no blob {DIGEST}"):
        await read(store)


async def test_a_cancelled_reader_still_reports_what_it_quarantined(root: Path) -> None:
    reporting, reported = asyncio.Event(), asyncio.Event()

    async def report(digest: str, where: str) -> None:
        reporting.set()
        await asyncio.sleep(0.1)
        reported.set()

    store = FilesystemContentStore(root, on_quarantine=report)
    await store.store(CONTENT)
    (root / LEAF).chmod(0o644)
    (root / LEAF).write_bytes(b"bad")
    reading = asyncio.create_task(read(store))
    await reporting.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert reported.is_set()
