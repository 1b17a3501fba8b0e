"""A file as anchor: best on a file system that somebody else keeps, or that keeps what was written once."""

import asyncio
from pathlib import Path
from secrets import token_hex

from triplane.adapters.filesystem.ledger import write_durably
from triplane.audit.note import MAX_NOTE
from triplane.errors import InvalidInput, Unavailable


class FileAnchor:
    """The latest checkpoint in one file, replaced whole and durably."""

    kind = "file"
    every_seconds = 0.0
    readable = True

    def __init__(self, path: Path, uri: str = "") -> None:
        self._path = path
        self.uri = uri or f"file:{path}"

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        return await asyncio.to_thread(self._read)

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``. The folder is made where it is missing."""
        await asyncio.to_thread(self._write, note)

    async def close(self) -> None:
        """Nothing is open."""

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                octets = file.read(MAX_NOTE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from error
        if len(octets) > MAX_NOTE:
            raise InvalidInput(f"{self._path} has over {MAX_NOTE} octets: it is no checkpoint")
        return octets or None

    def _write(self, note: bytes) -> None:
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_durably(self._path.parent / f".{self._path.name}.{token_hex(4)}", self._path, note, 0o644)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error}; make it writable for the operator") from error
