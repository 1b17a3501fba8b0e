"""The folders of the content store: ``blobs/sha256/ab/cd/<hex>``, ``quarantine`` and ``tmp``, blocking calls
only.

Everything is reached by descending from the root one folder at a time without following links, so a link
planted in the tree is refused, never walked through. Entries are only ever added by ``link()`` (atomic, never
replacing) and only removed under the lock of their shard, so what a check saw is what is moved.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from triplane.errors import BlobMissing, BlobQuarantined, Corrupt, TriplaneError, Unavailable

BLOBS: Final = ("blobs", "sha256")
QUARANTINE: Final = "quarantine"
TEMPORARY: Final = "tmp"
RENEW_SECONDS: Final = 1.0
"""A blob stored again within this time of the last keeps its time: hot content is not synced at every store."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHARD = re.compile(r"[0-9a-f]{2}", re.ASCII)


class Shards:
    """The store's folders below ``root``. Safe to use from many threads and processes."""

    def __init__(self, root: Path) -> None:
        """Make the folders (0700) and remove the temporary files of processes that are gone.

        Raises ``Unavailable`` when that fails, ``Corrupt`` when one of them is a link.
        """
        self.root = root
        self._synced: set[tuple[str, ...]] = set()
        with errors_at(root):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sync(root.parent)
            for parts in (BLOBS, (QUARANTINE,), (TEMPORARY,)):
                os.close(self.open_folder(*parts, make=True))
            self.sweep()

    def open_folder(self, *parts: str, make: bool = False) -> int:
        """Descend from the root without following links; the caller closes the descriptor.

        With ``make`` missing folders are made. Each folder on the way is durable afterwards: also one that
        another writer made a moment ago and has not synced yet, hence the memory of what this process synced
        itself.
        """
        current = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for depth, name in enumerate(parts, start=1):
                if make and parts[:depth] not in self._synced:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=current)
                    os.fsync(current)
                    self._synced.add(parts[:depth])
                below = _open_folder_at(current, name, self.root.joinpath(*parts[:depth]))
                os.close(current)
                current = below
        except BaseException:
            os.close(current)
            if make:
                self._synced.clear()  # what was remembered may have been removed under us: look again next time
            raise
        return current

    def path(self, digits: str) -> Path:
        """Where the blob of these hexadecimal digits is."""
        return self.root.joinpath(*self.shard(digits), digits)

    def shard(self, digits: str) -> tuple[str, ...]:
        """Folder of the blob, from the parsed digest alone."""
        return (*BLOBS, digits[:2], digits[2:4])

    @contextmanager
    def shard_of(self, digits: str) -> Iterator[int]:
        """The open shard of a blob. Raises ``BlobMissing`` when there is none yet."""
        try:
            folder = self.open_folder(*self.shard(digits))
        except FileNotFoundError:
            raise self.missing(digits) from None
        try:
            yield folder
        finally:
            os.close(folder)

    def open_blob(self, digits: str) -> tuple[int, os.stat_result]:
        """A descriptor of the blob, and the file it is.

        Raises ``BlobMissing``, ``Corrupt`` when no regular file is in its place, ``Unavailable``.
        """
        with errors_at(self.path(digits)), self.shard_of(digits) as folder:
            try:
                descriptor = os.open(digits, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                raise self.missing(digits) from None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                    raise self.not_a_file(digits) from error
                raise
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise self.not_a_file(digits)
                # Tells the collector that somebody reads. Not to be had while its writer still holds it, or the
                # collector: then it is read all the same, an open file stays whole.
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor, found

    def stat_blob(self, digits: str) -> os.stat_result:
        """What the file system says of the blob, links not followed. Raises as ``open_blob``."""
        with errors_at(self.path(digits)), self.shard_of(digits) as folder:
            try:
                found = os.stat(digits, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                raise self.missing(digits) from None
            if not stat.S_ISREG(found.st_mode):
                raise self.not_a_file(digits)
            return found

    def renew(self, digits: str, seen: os.stat_result) -> bool:
        """The blob that was seen, and found right, counts as stored now, durably; False if it has gone meanwhile.

        Under the lock of the shard, as its collection is: one of the two comes first, and the other sees it.
        Also its name is made durable: whoever linked it may not have come to that yet.
        """
        with errors_at(self.path(digits)):
            try:
                with self.shard_of(digits) as folder, locked(folder):
                    descriptor = os.open(
                        digits, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
                    )
                    try:
                        now = os.fstat(descriptor)
                        if (now.st_dev, now.st_ino) != (seen.st_dev, seen.st_ino):
                            return False
                        if abs(time.time() - now.st_mtime) > RENEW_SECONDS:
                            os.utime(descriptor)
                            os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    os.fsync(folder)
                    return True
            except (FileNotFoundError, BlobMissing):
                return False

    def remove(self, digits: str) -> bool:
        """Unlink the blob durably; False if there is none."""
        with errors_at(self.path(digits)):
            try:
                with self.shard_of(digits) as folder, locked(folder):
                    os.unlink(digits, dir_fd=folder)
                    os.fsync(folder)
            except (FileNotFoundError, BlobMissing):
                return False
            return True

    def quarantine(self, digits: str, seen: os.stat_result | None) -> Path | None:
        """Move the blob aside if it still is the file that was seen; returns where it is now, None if it
        moved on.

        ``seen`` None stands for whatever is there that is no regular file.
        """
        with errors_at(self.path(digits)):
            try:
                with self.shard_of(digits) as folder, locked(folder):
                    now = os.stat(digits, dir_fd=folder, follow_symlinks=False)
                    if seen is None:
                        unchanged = not stat.S_ISREG(now.st_mode)
                    else:
                        unchanged = (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino)
                    return self._move_aside(digits, folder) if unchanged else None
            except (FileNotFoundError, BlobMissing):
                return None

    def _move_aside(self, digits: str, folder: int) -> Path:
        aside = self.open_folder(QUARANTINE)
        try:
            name = f"{digits}.{token_hex(4)}"
            os.rename(digits, name, src_dir_fd=folder, dst_dir_fd=aside)
            with suppress(OSError):  # it is moved and must be reported; undone by a crash, it is found bad again
                os.fsync(aside)
                os.fsync(folder)
        finally:
            os.close(aside)
        return self.root / QUARANTINE / name

    def quarantined(self, digits: str) -> list[Path]:
        """The copies of this blob that were moved aside."""
        folder = self.open_folder(QUARANTINE)
        try:
            return [self.root / QUARANTINE / name for name in sorted(os.listdir(folder)) if name[:64] == digits]
        finally:
            os.close(folder)

    def in_quarantine(self) -> list[str]:
        """Digits of whatever was moved aside, ascending; some more than once."""
        found = (name.partition(".")[0] for name in self._names(QUARANTINE))
        return [digits for digits in found if _HEX.fullmatch(digits)]

    def missing(self, digits: str) -> BlobMissing:
        """The error for a blob that is not there; says if it was quarantined."""
        aside = self.quarantined(digits)
        if aside:
            return BlobQuarantined(
                f"sha256:{digits} is quarantined: what was stored under it had other content, see "
                f"{aside[-1]}; "
                "store the right content again"
            )
        return BlobMissing(
            f"no blob sha256:{digits} in {self.root}; store it first (it may have been erased: see the log)"
        )

    def not_a_file(self, digits: str) -> Corrupt:
        """The error for a link, folder or device in a blob's place."""
        return Corrupt(
            f"sha256:{digits}: {self.path(digits)} is not a regular file; links are never followed. "
            "Find out who put it there, then store the content again"
        )

    def digits_of_shard(self, first: str, second: str) -> list[str]:
        """Blobs of one shard, ascending."""
        return [
            name for name in self._names(*BLOBS, first, second) if _HEX.fullmatch(name) and name[:4] == first + second
        ]

    def shards(self, *parts: str) -> list[str]:
        """Shard folders below ``blobs/sha256`` or one of its folders, ascending."""
        return [name for name in self._names(*BLOBS, *parts) if _SHARD.fullmatch(name)]

    def _names(self, *parts: str) -> list[str]:
        with errors_at(self.root.joinpath(*parts)):
            try:
                folder = self.open_folder(*parts)
            except FileNotFoundError:
                return []
            try:
                return sorted(os.listdir(folder))
            finally:
                os.close(folder)

    def sweep(self) -> int:
        """Remove the temporary files of dead writers; returns how many.

        A writer holds its temporary file's lock while it lives: what can be locked belongs to nobody.
        """
        gone = 0
        folder = self.open_folder(TEMPORARY)
        try:
            for name in os.listdir(folder):
                with suppress(OSError):  # in use, just gone, or nothing of ours: leave it
                    descriptor = os.open(
                        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
                    )
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(name, dir_fd=folder)
                        gone += 1
                    finally:
                        os.close(descriptor)
        finally:
            os.close(folder)
        return gone


@contextmanager
def errors_at(where: Path) -> Iterator[None]:
    """Wrap what the file system raises: the caller learns which call failed where, and that repeating is
    safe."""
    try:
        yield
    except TriplaneError:
        raise
    except OSError as error:
        raise Unavailable(
            f"content store at {where}: {os.strerror(error.errno or 0)}; nothing partial was kept. "
            "Free space or mend the disk, then try again"
        ) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_folder_at(parent: int, name: str, path: Path) -> int:
    try:
        return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Corrupt(
                f"{path} is not a folder of the content store but a link or file; links are never followed. "
                "Find out who put it there and remove it"
            ) from error
        raise


@contextmanager
def locked(folder: int) -> Iterator[None]:
    """Exclusive among all who remove from this shard or renew in it, over threads and processes."""
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)
