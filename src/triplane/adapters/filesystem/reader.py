"""Reads the blobs of a content store's folder and changes nothing: for auditors, beside the gateway that owns it.

The gateway's own store moves a damaged blob aside and logs it; whoever only looks must do neither.
"""

import asyncio
from pathlib import Path

from triplane.adapters.filesystem.shards import BLOBS
from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.errors import BlobMissing, Corrupt, TooLarge, Unavailable


class BlobReader:
    """The blobs under ``root``, each checked against its digest as it is read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read(self, digest: str, *, limit: int) -> bytes:
        """The whole blob. Raises ``BlobMissing``, ``Corrupt``, ``TooLarge`` over ``limit`` octets, ``Unavailable``."""
        return await asyncio.to_thread(self._read, digest, limit)

    def _read(self, digest: str, limit: int) -> bytes:
        digits = parse_digest(digest)
        path = self._root.joinpath(*BLOBS) / digits[:2] / digits[2:4] / digits
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError as error:
            raise BlobMissing(f"blob {digest} is not stored") from error
        except OSError as error:
            raise Unavailable(f"blob {digest} cannot be read: {error.strerror}; check {self._root}") from error
        if len(content) > limit:
            raise TooLarge(f"blob {digest} is over {limit} octets")
        if digest_of_bytes(content) != digest:
            raise Corrupt(f"blob {digest} is damaged: restore it from a backup")
        return content
