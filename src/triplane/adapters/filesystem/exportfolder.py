"""A folder that a log is exported to: every file whole or not there, and all of them durable before the checkpoint.

One export at a time: the folder is locked. What an export that was broken off leaves under a temporary name is
overwritten by the next.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from triplane.audit.layout import CHECKPOINT, File
from triplane.errors import Conflict, InvalidInput, NotFound

_OURS: Final = frozenset({CHECKPOINT, "tile", "proofs"})
_PARTIAL: Final = ".partial"
_MOST_FOLDERS: Final = 256
"""Folders that wait to be synced."""


class ExportFolder:
    """``triplane.controllers.exporting.ExportTarget``; use it as a context."""

    def __init__(self, root: Path) -> None:
        """Raises ``InvalidInput`` when it cannot be written or holds other things, ``Conflict`` when another export
        writes there now."""
        self._root = root
        self._unsynced: set[Path] = set()
        self._lock = -1

    def __enter__(self) -> Self:
        with _writing(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                strange = sorted(path.name for path in self._root.iterdir() if not _ours(path.name))
            except BlockingIOError as error:
                os.close(self._lock)
                raise Conflict(f"another export writes to {self._root} now: wait for it") from error
        if strange:
            self.__exit__()
            raise InvalidInput(f"{self._root} holds {strange[0]}, which no export wrote: name a new or empty folder")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def read(self, path: str) -> bytes:
        """See ``ExportTarget.read``."""
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{self._root / path} is not there") from error
        except OSError as error:
            raise InvalidInput(f"{self._root / path} cannot be read: {error.strerror}") from error

    def exists(self, path: str) -> bool:
        """See ``ExportTarget.exists``."""
        return (self._root / path).exists()

    def named(self, path: str) -> str:
        """See ``ExportTarget.named``."""
        return str(self._root / path)

    def write(self, file: File) -> None:
        """See ``ExportTarget.write``."""
        path = self._root / file.path
        scratch = path.with_name(path.name + _PARTIAL)
        with _writing(path):
            self._folder(path.parent)
            with scratch.open("wb") as opened:
                opened.write(file.octets)
                opened.flush()
                os.fsync(opened.fileno())
            scratch.replace(path)
            self._unsynced.add(path.parent)
        if len(self._unsynced) > _MOST_FOLDERS:
            self.settle()

    def settle(self) -> None:
        """See ``ExportTarget.settle``: the files are synced as they are written, here their names."""
        for folder in self._unsynced:
            with _writing(folder):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        self._unsynced.clear()

    def _folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self._unsynced.add(folder.parent)


def _ours(name: str) -> bool:
    return name.removesuffix(_PARTIAL) in _OURS


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}; make room or name another folder") from error
