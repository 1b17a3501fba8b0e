"""The notary's own record in a folder: the last signed checkpoint, and how far each anchor was taken.

It lies outside Postgres on purpose: whoever owns the database does not own it. A change is written to a temporary file,
made durable and renamed, under a lock that every process of this machine takes, so that a crash leaves the record
before or after it and two notaries cannot both believe to be the last.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final

from triplane.errors import Conflict, InvalidInput, Unavailable

FOLDER: Final = "notary"
"""Below the home."""
SIGNED: Final = "checkpoint"
ANCHORED: Final = "anchors.json"
_LOCK: Final = ".lock"


class FolderLedger:
    """``triplane.ports.Ledger`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> bytes | None:
        """See ``Ledger.read``."""
        return self._octets(SIGNED)

    def replace(self, expected: bytes | None, note: bytes) -> None:
        """See ``Ledger.replace``."""
        with self._locked():
            if self._octets(SIGNED) != expected:
                raise Conflict(
                    f"{self._folder / SIGNED} holds another checkpoint than the one that was signed here last"
                )
            self._write(SIGNED, note)

    def anchored(self, anchor: str) -> int | None:
        """See ``Ledger.anchored``."""
        return self._anchors().get(anchor)

    def note_anchored(self, anchor: str, size: int) -> None:
        """See ``Ledger.note_anchored``."""
        with self._locked():
            document = json.dumps({**self._anchors(), anchor: size}, indent=2, sort_keys=True)
            self._write(ANCHORED, f"{document}\n".encode())

    def given(self) -> Sequence[str]:
        """See ``Ledger.given``."""
        return sorted(self._anchors())

    def _anchors(self) -> dict[str, int]:
        octets = self._octets(ANCHORED)
        if octets is None:
            return {}
        try:
            found = json.loads(octets)
            return {str(anchor): int(size) for anchor, size in found.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(
                f"{self._folder / ANCHORED} is damaged ({error}): restore it; without it every anchor counts as new"
            ) from error

    def _octets(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._folder / name} cannot be read: {error}; the operator must own it") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot hold the notary's record: {error}; make it writable") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, name: str, octets: bytes) -> None:
        scratch = self._folder / f".{name}.{token_hex(4)}"
        try:
            write_durably(scratch, self._folder / name, octets)
        except OSError as error:
            raise Unavailable(
                f"{self._folder / name} cannot be written: {error}; make room, or the folder writable"
            ) from error


def write_durably(scratch: Path, path: Path, octets: bytes, mode: int = 0o600) -> None:
    """Put these octets at ``path`` whole or not at all, by way of a new file beside it. Raises ``OSError``."""
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
