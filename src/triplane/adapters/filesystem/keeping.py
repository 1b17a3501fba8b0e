"""What the keeper of the content store's folder does: list with times, hold, collect. Blocking calls only.

Three things keep a blob from its collector, each checked under the lock of the blob's shard: its time, which a store
renews under the same lock; an entry in ``holds``; and a lock on the file itself, which its writer has until its
temporary name is gone and a reader while it reads. None needs a process id, and all end with the process.
"""

import fcntl
import os
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from triplane.adapters.filesystem.shards import TEMPORARY, Shards, errors_at, locked
from triplane.adapters.filesystem.temporary import create_locked
from triplane.audit.digest import digest_of_hex
from triplane.domain.collection import StoredBlob, check_holder
from triplane.errors import BlobMissing, Conflict, Fenced
from triplane.failpoint import failpoint
from triplane.ports import KeeperRole

HOLDS: Final = "holds"
OWNER: Final = "owner"

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Keeping:
    """The keeper's view of the shards. Safe to use from many threads and processes."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def stored_in(self, first: str, second: str) -> list[StoredBlob]:
        """The blobs of one shard, ascending. What is no regular file is left out: reading it reports it."""
        found = []
        for digits in self._shards.digits_of_shard(first, second):
            with suppress(BlobMissing), errors_at(self._shards.path(digits)), self._shards.shard_of(digits) as folder:
                try:
                    seen = os.stat(digits, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(seen.st_mode):
                    found.append(StoredBlob(digest_of_hex(digits), seen.st_size, _time(seen.st_mtime_ns)))
        return found

    def collect(self, digits: str, before: datetime) -> bool:
        """See ``KeptContent.collect``."""
        with errors_at(self._shards.path(digits)):
            try:
                with self._shards.shard_of(digits) as folder, locked(folder):
                    return self._collect_in(folder, digits, before)
            except (FileNotFoundError, BlobMissing):
                return False

    def _collect_in(self, folder: int, digits: str, before: datetime) -> bool:
        descriptor = os.open(digits, _READ, dir_fd=folder)
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode) or _time(seen.st_mtime_ns) >= before or self._holders(digits):
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody writes or reads it
                return False
            failpoint("cas.collect.before_unlink")
            os.unlink(digits, dir_fd=folder)
            failpoint("cas.collect.after_unlink")
            os.fsync(folder)
            return True
        finally:
            os.close(descriptor)

    def hold(self, digits: str, holder: str, seconds: float) -> None:
        """See ``KeptContent.hold``. The time of the hold's file is when it ends."""
        check_holder(holder)
        with errors_at(self._shards.root / HOLDS), self._shards.shard_of(digits) as shard, locked(shard):
            try:
                os.stat(digits, dir_fd=shard, follow_symlinks=False)
            except FileNotFoundError:
                raise self._shards.missing(digits) from None
            folder = self._shards.open_folder(HOLDS, digits, make=True)
            try:
                descriptor = os.open(holder, _MAKE, 0o600, dir_fd=folder)
                try:
                    until = time.time() + seconds
                    os.utime(descriptor, (until, until))
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.fsync(folder)
            finally:
                os.close(folder)

    def release(self, digits: str, holder: str) -> bool:
        """See ``KeptContent.release``."""
        check_holder(holder)
        with errors_at(self._shards.root / HOLDS):
            try:
                folder = self._shards.open_folder(HOLDS, digits)
            except FileNotFoundError:
                return False
            try:
                until = os.stat(holder, dir_fd=folder, follow_symlinks=False).st_mtime
                os.unlink(holder, dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                return False
            finally:
                os.close(folder)
            return until > time.time()

    def held(self) -> list[str]:
        """Digits of the blobs that somebody holds now."""
        return [digits for digits in self._names(HOLDS) if self._holders(digits)]

    def owner(self, origin: str) -> str:
        """See ``KeptContent.owner``: the file ``owner``, which is written once and shows nothing that is not whole."""
        path = self._shards.root / OWNER
        with errors_at(path):
            if (found := _line_of(path)) is not None:
                return found
            root, folder = self._shards.open_folder(), self._shards.open_folder(TEMPORARY)
            try:
                name, descriptor = create_locked(folder)
                try:
                    os.write(descriptor, f"{origin}\n".encode())
                    os.fsync(descriptor)
                    with suppress(FileExistsError):  # somebody was first, a moment ago
                        os.link(name, OWNER, src_dir_fd=folder, dst_dir_fd=root, follow_symlinks=False)
                    os.fsync(root)
                finally:
                    os.unlink(name, dir_fd=folder)
                    os.close(descriptor)
            finally:
                os.close(root)
                os.close(folder)
            return _line_of(path) or ""

    def tidy(self, before: datetime) -> int:
        """See ``KeptContent.tidy``: holds that are over, and the temporary files of dead writers."""
        gone = self._shards.sweep()
        now = min(before.timestamp(), time.time())
        for digits in self._names(HOLDS):
            for holder, until in self._hold_times(digits):
                gone += until <= now and self._drop(digits, holder, now)
        return gone

    def _drop(self, digits: str, holder: str, now: float) -> bool:
        """Remove a hold that is over, unless it was renewed meanwhile: under the lock that ``hold`` takes."""
        with errors_at(self._shards.root / HOLDS):
            try:
                with self._shards.shard_of(digits) as shard, locked(shard):
                    times = dict(self._hold_times(digits))
                    if times.get(holder, now + 1) > now:
                        return False
                    self.release(digits, holder)
                    return True
            except BlobMissing:  # nobody can hold it any more
                self.release(digits, holder)
                return True

    def _holders(self, digits: str) -> list[str]:
        return [holder for holder, until in self._hold_times(digits) if until > time.time()]

    def _hold_times(self, digits: str) -> list[tuple[str, float]]:
        try:
            folder = self._shards.open_folder(HOLDS, digits)
        except FileNotFoundError:
            return []
        found = []
        try:
            for holder in sorted(os.listdir(folder)):
                with suppress(FileNotFoundError):
                    found.append((holder, os.stat(holder, dir_fd=folder, follow_symlinks=False).st_mtime))
        finally:
            os.close(folder)
        return found

    def _names(self, part: str) -> list[str]:
        with errors_at(self._shards.root / part):
            try:
                folder = self._shards.open_folder(part)
            except FileNotFoundError:
                return []
            try:
                return sorted(os.listdir(folder))
            finally:
                os.close(folder)


class FileLease:
    """``triplane.ports.CollectorLease`` as a lock on a file of the store, ``<role>.lock``."""

    def __init__(self, shards: Shards, role: KeeperRole) -> None:
        """Take it. Raises ``Conflict`` when another has it."""
        self._role = role
        path = shards.root / f"{role}.lock"
        with errors_at(path):
            folder = shards.open_folder(TEMPORARY)  # proves that the root is ours before anything is made in it
            os.close(folder)
            self._descriptor = os.open(path, _MAKE, 0o600)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.utime(self._descriptor)
                self.began = _time(os.fstat(self._descriptor).st_mtime_ns)
            except BlockingIOError:
                os.close(self._descriptor)
                raise Conflict(f"another {role} is at work on {shards.root}; let it end") from None
            except BaseException:
                os.close(self._descriptor)
                raise

    async def renew(self) -> None:
        """See ``CollectorLease.renew``."""
        if self._descriptor < 0:
            raise Fenced(f"the {self._role}'s lock was given back; take it again")

    def close(self) -> None:
        """Give it back. Harmless twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _line_of(path: Path) -> str | None:
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, 4096).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
