"""Backups in a folder: sets beside one another, and the blobs that they share.

::

    lock                    held by whoever writes; tells that the folder is ours
    content/blobs/sha256/…  blobs of all sets, laid out as a content store, each stored once
    erased                  digests that were erased, and not put again since: no set gives them back
    sets/<time>-<random>/
        unfinished          stands from the first octet to the last
        tables/<schema>.<table>   blobs   blobs-erased   blobs-lost   secrets/…
        manifest.json.sha256      in the format of sha256sum
        manifest.json       comes last, whole, by a rename

A set is finished when it has its manifest. Everything is its owner's alone: a backup holds names of people.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Final

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.filesystem.shards import BLOBS
from triplane.audit.digest import parse_digest
from triplane.domain.backup import FileFacts
from triplane.errors import BlobMissing, Conflict, Corrupt, InvalidInput, NotFound, Unavailable

MANIFEST: Final = "manifest.json"
_CONTENT = "content"
_LOCK = "lock"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{6}", re.ASCII)
_ERASED = "erased"
_SETS = "sets"
_SUM = "manifest.json.sha256"
_UNFINISHED = "unfinished"
_CHUNK = 1 << 20
_NO_CAP = 1 << 62


class BackupSet:
    """One set, to be written or read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    @property
    def begun(self) -> bool:
        """Whether it says of itself that it is unfinished, or was made and nothing more."""
        return (self.folder / _UNFINISHED).is_file() or not any(self.folder.iterdir())

    async def write(self, path: str, chunks: AsyncIterable[bytes] | Iterable[bytes]) -> FileFacts:
        """A file of the set, durable; its digest and size. Raises ``Unavailable``."""
        target = self.folder / path
        hashed, octets, waiting = hashlib.sha256(), 0, bytearray()
        with _errors(target):
            file = await asyncio.to_thread(_made, target)
            try:
                async for chunk in _each(chunks):
                    waiting += chunk
                    if len(waiting) >= _CHUNK:
                        hashed.update(waiting)
                        octets += len(waiting)
                        await asyncio.to_thread(_write_all, file, bytes(waiting))
                        waiting.clear()
                hashed.update(waiting)
                octets += len(waiting)
                await asyncio.to_thread(_write_all, file, bytes(waiting))
                await asyncio.to_thread(os.fsync, file)
            finally:
                os.close(file)
            await asyncio.to_thread(_sync, target.parent)
        return FileFacts(sha256=hashed.hexdigest(), octets=octets)

    async def finish(self, manifest: bytes) -> None:
        """Write the manifest: from now on it is a backup."""
        digest = hashlib.sha256(manifest).hexdigest()
        await self.write(_SUM, [f"{digest}  {MANIFEST}\n".encode()])
        await self.write(f".{MANIFEST}.new", [manifest])
        with _errors(self.folder):
            (self.folder / f".{MANIFEST}.new").rename(self.folder / MANIFEST)
            _sync(self.folder)
            (self.folder / _UNFINISHED).unlink()
            _sync(self.folder)

    def manifest(self) -> bytes:
        """Its octets. Raises ``NotFound`` for an unfinished set, ``Corrupt`` when they are not what was written."""
        if not self.finished:
            raise NotFound(
                f"the backup {self.folder} is unfinished: it was interrupted and has no manifest; take another set, "
                "or run `triplane backup` again where the installation is"
            )
        with _errors(self.folder):
            octets = (self.folder / MANIFEST).read_bytes()
            try:
                noted = (self.folder / _SUM).read_text(errors="replace")
            except FileNotFoundError:
                noted = ""
        if noted != f"{hashlib.sha256(octets).hexdigest()}  {MANIFEST}\n":
            raise Corrupt(
                f"{self.folder / MANIFEST} is not what {_SUM} beside it names: one of the two was altered, take the "
                "backup from another copy"
            )
        return octets

    async def read(self, path: str, facts: FileFacts) -> AsyncIterator[bytes]:
        """The file in chunks; raises ``Corrupt``, naming it, at the end unless it is what the manifest says."""
        source = self.folder / path
        hashed, octets = hashlib.sha256(), 0
        try:
            with _errors(source), source.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    hashed.update(chunk)
                    octets += len(chunk)
                    yield chunk
        except NotFound as error:
            raise Corrupt(f"{source} is missing, the manifest names it: take the backup from another copy") from error
        if hashed.hexdigest() != facts.sha256 or octets != facts.octets:
            raise Corrupt(
                f"{source} has {octets} octets with SHA-256 {hashed.hexdigest()}, the manifest says {facts.octets} "
                f"with {facts.sha256}: it was altered, take the backup from another copy"
            )

    async def lines(self, path: str, facts: FileFacts) -> AsyncIterator[bytes]:
        """The same, line by line."""
        rest = b""
        async for chunk in self.read(path, facts):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest


class BackupFolder:
    """The folder of a backup command, on any file system with links."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Be the only one who writes here; sets that nobody will finish are removed. Raises ``Conflict``,
        ``Unavailable``, and ``InvalidInput`` for a folder that holds something else: it is not touched."""
        with _errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = os.listdir(self.root)
            if found and _LOCK not in found:
                raise InvalidInput(
                    f"{self.root} is not empty and no folder of backups (it has no file {_LOCK}): name an empty "
                    f"folder, or one that does not exist. If it is a copy of one, make an empty file {_LOCK} in it"
                )
            lock = open(os.open(self.root / _LOCK, os.O_WRONLY | os.O_CREAT, 0o600), "w")  # noqa: ASYNC230, SIM115
            self.root.chmod(0o700)
            (self.root / _SETS).mkdir(exist_ok=True, mode=0o700)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(f"another backup is being written to {self.root}: wait for its end") from error
            for begun in self.sets():
                if not begun.finished and begun.begun:
                    await asyncio.to_thread(shutil.rmtree, begun.folder)
            yield

    def begin(self, now: datetime) -> BackupSet:
        """A new set, marked as unfinished."""
        folder = self.root / _SETS / f"{now:%Y%m%dT%H%M%S.%f}Z-{token_hex(3)}"
        with _errors(folder):
            folder.mkdir(mode=0o700)
            descriptor = os.open(folder / _UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write("This backup was begun and has not ended: it cannot be restored.\n")
            _sync(folder)
            _sync(folder.parent)
        return BackupSet(folder)

    def content(self) -> FilesystemContentStore:
        """The blobs, to be written."""
        return FilesystemContentStore(self.root / _CONTENT, cap=_NO_CAP)

    def sets(self) -> list[BackupSet]:
        """All that have the name of one, oldest first."""
        folder = self.root / _SETS
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [BackupSet(path) for path in found if _NAME.fullmatch(path.name) and path.is_dir()]

    def choose(self, name: str | None) -> BackupSet:
        """The set of that name, or the newest. Raises ``InvalidInput`` when there is none, and when a newer one than
        the newest finished was interrupted: whoever takes an older one must say so."""
        found = self.sets()
        if name is not None:
            chosen = [item for item in found if item.name == name]
            if not chosen:
                raise InvalidInput(f"{self.root} has no set {name}; it has {', '.join(map(_told, found)) or 'none'}")
            return chosen[0]
        if not found:
            raise InvalidInput(f"{self.root} holds no backup: there is nothing in its folder {_SETS}")
        if not found[-1].finished:
            raise InvalidInput(
                f"the newest backup in {self.root} is unfinished: {found[-1].name} was interrupted. Name an older one "
                f"with --set: {', '.join(map(_told, found))}"
            )
        return found[-1]

    def erased(self) -> frozenset[str]:
        """Digests of blobs that were taken out of the sets, and not put again since."""
        try:
            return frozenset((self.root / _ERASED).read_text().split())
        except FileNotFoundError:
            return frozenset()

    async def erase(self, digests: Iterable[str]) -> int:
        """Take these blobs out of every set, and remember it first; how many there were."""
        wanted = sorted(set(digests))
        if not wanted:
            return 0
        self._remember(self.erased() | set(wanted))
        content = self.content()
        return sum([await content.delete(digest) for digest in wanted])

    async def put_again(self, digests: Iterable[str]) -> None:
        """Forget that they were erased: they are stored here once more."""
        self._remember(self.erased() - set(digests))

    def _remember(self, erased: frozenset[str]) -> None:
        if erased == self.erased():
            return
        with _errors(self.root / _ERASED):
            fresh = self.root / f".{_ERASED}.new"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.writelines(f"{digest}\n" for digest in sorted(erased))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self.root / _ERASED)
            _sync(self.root)

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        """A blob in chunks, changing nothing: the folder may be read-only. Raises ``BlobMissing``, and ``Corrupt``,
        naming the file, at its end."""
        digits = parse_digest(digest)
        path = self.root.joinpath(_CONTENT, *BLOBS, digits[:2], digits[2:4], digits)
        hashed = hashlib.sha256()
        try:
            with _errors(path), path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    hashed.update(chunk)
                    yield chunk
        except NotFound as error:
            raise BlobMissing(f"the backup names blob {digest}, and {path} is missing: take another copy") from error
        if hashed.hexdigest() != digits:
            raise Corrupt(f"{path} hashes to {hashed.hexdigest()}: the blob was altered, take it from another copy")


def _told(item: BackupSet) -> str:
    return item.name if item.finished else f"{item.name} (unfinished)"


async def _each(chunks: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _made(target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def _write_all(file: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(file, view) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors(where: Path) -> Iterator[None]:
    """Turns the system's errors inside into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{where} is not there") from error
    except OSError as error:
        raise Unavailable(f"{where} cannot be used: {error.strerror}") from error
