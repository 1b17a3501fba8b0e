"""What the content store costs, against the plainest tools on the same disk: ``cp`` + ``sync``, ``sha256sum`` and
``git hash-object -w`` with fsync.

The tools are started once for each blob (and once for all by ``git``), for that is how they are used; of small blobs
their start is most of it. ``CAS_LARGE_OCTETS``, ``CAS_SMALL_BLOBS`` and ``CAS_REPEAT`` make it smaller.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.figures import Figure, figure
from triplane.adapters.filesystem.contentstore import FilesystemContentStore

LARGE = int(os.environ.get("CAS_LARGE_OCTETS", str(1 << 30)))
SMALL_BLOBS = int(os.environ.get("CAS_SMALL_BLOBS", "200"))
REPEAT = int(os.environ.get("CAS_REPEAT", "3"))
WRITERS = 8
"""Stores at once where ``git`` is given everything at once."""

Ran = Callable[[], float]
"""Does it once; seconds."""


class Bench:
    """A folder with contents to be stored, thrown away afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def files(self, count: int, octets: int) -> list[Path]:
        """Files with different random content, durable: what follows is not slowed down by their writing."""
        made = []
        for _ in range(count):
            path = self.fresh("source")
            block = os.urandom(min(octets, 1 << 20))
            with path.open("wb") as file:
                for start in range(0, octets, len(block)):
                    file.write(start.to_bytes(8, "big") + block[8 : min(len(block), octets - start)])
                os.fsync(file.fileno())
            made.append(path)
        return made

    def fresh(self, name: str) -> Path:
        """A path that nobody has used."""
        self._number += 1
        return self._folder / f"{name}-{self._number}"

    def store(self, files: Sequence[Path], writers: int = 1) -> float:
        """All of them into a new store, in a closed loop of so many writers."""
        root = self.fresh("store")

        async def run() -> float:
            store = FilesystemContentStore(root)
            waiting = list(files)

            async def write() -> None:
                while waiting:
                    path = waiting.pop()
                    small = path.stat().st_size <= 1 << 18
                    await store.store(path.read_bytes() if small else _chunks(path))

            return await _timed(lambda: asyncio.gather(*(write() for _ in range(writers))))

        try:
            return asyncio.run(run())
        finally:
            shutil.rmtree(root)

    def resolve(self, files: Sequence[Path]) -> Ran:
        """All of them out of a store that has them."""
        root = self.fresh("store")

        async def fill() -> list[str]:
            store = FilesystemContentStore(root)
            return [await store.store(_chunks(path)) for path in files]

        digests = asyncio.run(fill())

        async def read_all() -> None:
            store = FilesystemContentStore(root)
            for digest in digests:
                async for _ in store.resolve(digest):
                    pass

        return lambda: asyncio.run(_timed(read_all))

    def cp(self, files: Sequence[Path]) -> float:
        """``cp`` and ``sync`` of file and folder, one after the other."""
        target = self.fresh("copies")
        target.mkdir()
        began = time.perf_counter()
        for path in files:
            copy = target / path.name
            _run("cp", path, copy)
            _run("sync", copy, target)
        seconds = time.perf_counter() - began
        shutil.rmtree(target)
        return seconds

    def sha256sum(self, files: Sequence[Path]) -> float:
        """One process for each."""
        began = time.perf_counter()
        for path in files:
            _run("sha256sum", path)
        return time.perf_counter() - began

    def git(self, files: Sequence[Path]) -> float:
        """``git hash-object -w``, loose objects synced, one process for all."""
        repository = self.fresh("git")
        _run("git", "init", "--quiet", "--bare", repository)
        command = ["git", "-C", str(repository), "-c", "core.fsync=loose-object", "-c", "core.fsyncMethod=fsync"]
        paths = "".join(f"{path}\n" for path in files)
        began = time.perf_counter()
        subprocess.run(
            [*command, "hash-object", "-w", "--stdin-paths"], input=paths, text=True, check=True, capture_output=True
        )
        seconds = time.perf_counter() - began
        shutil.rmtree(repository)
        return seconds


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def compared(name: str, octets: int, ours: Ran, theirs: Ran) -> Figure:
    """Both in turn, so that what else the machine does meets both; the median of each, in MiB/s."""
    pairs = [(ours(), theirs()) for _ in range(REPEAT)]
    value, reference = (octets / (1 << 20) / median(each) for each in zip(*pairs, strict=True))
    return figure(name, value, "MiB/s", repeat=REPEAT, reference=reference)


def figures() -> list[Figure]:
    """All figures of this module."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tri-bench-cas-", dir=os.environ.get("TMPDIR")) as folder:
        bench = Bench(Path(folder))
        for label, count, octets in (("1k", SMALL_BLOBS, 1 << 10), ("1m", SMALL_BLOBS // 4, 1 << 20), ("1g", 1, LARGE)):
            files = bench.files(count, octets)
            total = count * octets
            store, cp = partial(bench.store, files), partial(bench.cp, files)
            found.append(compared(f"cas.store_vs_cp_{label}", total, store, cp))
            resolve, sha256sum = bench.resolve(files), partial(bench.sha256sum, files)
            found.append(compared(f"cas.resolve_vs_sha256sum_{label}", total, resolve, sha256sum))
            if label == "1k":
                together, git = partial(bench.store, files, WRITERS), partial(bench.git, files)
                found.append(compared("cas.store_vs_git_hash_object", total, together, git))
            for path in files:
                path.unlink()
    return found


if __name__ == "__main__":
    for each in figures():
        print(f"{each['name']:32} {each['value']:>10.2f} {each['reference']:>10.2f} MiB/s  {each['ratio']:.2f}")
