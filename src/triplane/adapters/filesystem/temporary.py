"""One blob on its way into the store: written, hashed and synced under a temporary name, then linked into
place.

A blob's own name never shows anything that is not whole, synced and read-only. Blocking calls only; the lock
makes a cancelled caller's clean-up wait for the thread that still writes.
"""

import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from secrets import token_hex
from threading import Lock
from typing import Final

from triplane.adapters.filesystem.shards import TEMPORARY, Shards, errors_at
from triplane.errors import BlobMissing, Corrupt, DigestMismatch, TooLarge, Unavailable
from triplane.failpoint import failpoint

READ_SIZE: Final = 1 << 20
"""Octets read at a time when hashing what is stored."""
EARLY_OCTETS: Final = 1 << 20
"""Written at once, so many are worth telling the disk of."""


class TemporaryBlob:
    """A file in ``tmp`` that becomes a blob, or nothing."""

    def __init__(self, shards: Shards, limit: int) -> None:
        """Open it. ``limit`` is the most octets it takes. Raises ``Unavailable``."""
        self._shards = shards
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = Lock()
        self._hashing = Lock()
        self._folder = self._descriptor = -1
        with errors_at(shards.root / TEMPORARY):
            self._folder = shards.open_folder(TEMPORARY)
            try:
                self._name, self._descriptor = create_locked(self._folder)
            except BaseException:
                os.close(self._folder)
                raise

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append; ``hash`` must be given the same, in another thread if one likes: neither waits for the other.

        The disk is told to begin at once, so that ``finish`` has little to wait for. Raises ``TooLarge``,
        ``Unavailable``.
        """
        with self._lock, errors_at(self._shards.root / TEMPORARY / self._name):
            began = self._size
            for chunk in chunks:
                self._size += len(chunk)
                if self._size > self._limit:
                    raise TooLarge(f"the content is larger than {self._limit} octets; send less or raise the limit")
                view = memoryview(chunk)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            if self._size - began >= EARLY_OCTETS and hasattr(os, "posix_fadvise"):
                # Linux begins to write what is dirty there, and does not wait (mm/fadvise.c).
                os.posix_fadvise(self._descriptor, began, self._size - began, os.POSIX_FADV_DONTNEED)

    def hash(self, chunks: Sequence[bytes]) -> None:
        """Count it in the digest."""
        with self._hashing:
            for chunk in chunks:
                self._hash.update(chunk)

    def finish(self, expect: str | None) -> str:
        """Sync and seal; returns the hexadecimal digits. Raises ``DigestMismatch`` if they are not ``expect``."""
        with self._lock, self._hashing, errors_at(self._shards.root / TEMPORARY / self._name):
            digits = self._hash.hexdigest()
            if expect is not None and digits != expect:
                raise DigestMismatch(
                    f"the content is sha256:{digits}, not the expected sha256:{expect}; nothing was stored. "
                    "Send the right content or the right digest",
                    actual=f"sha256:{digits}",
                )
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, 0o444)
            return digits

    def link(self, digits: str) -> bool:
        """Link it into its place, durably; False if something is there already (then nothing was changed)."""
        with self._lock, errors_at(self._shards.path(digits)):
            folder = self._shards.open_folder(*self._shards.shard(digits), make=True)
            try:
                failpoint("cas.store.before_link")
                try:
                    os.link(
                        self._name,
                        digits,
                        src_dir_fd=self._folder,
                        dst_dir_fd=folder,
                        follow_symlinks=False,
                    )
                    made = True
                except FileExistsError:
                    made = False
                failpoint("cas.store.after_link")
                # Also when it was there: whoever linked it may not have come to this yet.
                os.fsync(folder)
                return made
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Remove the temporary name and close; the linked blob, if any, stays. Harmless twice.

        A name that cannot be removed is no failure of the store: the next sweep takes it.
        """
        with self._lock:
            if self._folder < 0:
                return
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
            folder, descriptor, self._folder, self._descriptor = self._folder, self._descriptor, -1, -1
            for each in (descriptor, folder):
                with suppress(OSError):  # what counts is synced
                    os.close(each)


def store_at_once(shards: Shards, content: bytes, expect: str | None, limit: int) -> tuple[str, bool]:
    """Hexadecimal digits of the content, and whether it is stored; it is not when something else is in its place.

    What is there and whole is not written again. Raises as ``TemporaryBlob``.
    """
    digits = hashlib.sha256(content).hexdigest()
    if len(content) <= limit and expect in (None, digits) and os.path.lexists(shards.path(digits)):
        try:
            seen, right = verify_blob(shards, digits)
        except BlobMissing:
            pass
        except Corrupt:
            return digits, False
        else:
            if not right:
                return digits, False
            if shards.renew(digits, seen):
                return digits, True
    temporary = TemporaryBlob(shards, limit)
    try:
        temporary.write((content,))
        temporary.hash((content,))
        return digits, temporary.link(temporary.finish(expect))
    finally:
        temporary.discard()


def verify_blob(shards: Shards, digits: str) -> tuple[os.stat_result, bool]:
    """Read the whole blob; the file it is, and whether that is what its name says.

    Raises ``BlobMissing``, ``Corrupt`` when no regular file is in its place, ``Unavailable``.
    """
    descriptor, seen = shards.open_blob(digits)
    with errors_at(shards.path(digits)):
        try:
            found = hashlib.sha256()
            while chunk := os.read(descriptor, READ_SIZE):
                found.update(chunk)
            return seen, found.hexdigest() == digits
        finally:
            os.close(descriptor)


def create_locked(folder: int) -> tuple[str, int]:
    """A new file whose lock we hold: the lock, not a process id, tells the sweep that its writer lives."""
    for _ in range(8):
        name = token_hex(16)
        descriptor = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return name, descriptor
            os.close(descriptor)  # a sweep took it between the two calls
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
    raise Unavailable("content store: another process keeps sweeping our temporary files; is one restarting?")
