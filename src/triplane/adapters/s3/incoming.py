"""Content on its way into a bucket: gathered into pieces worth a request, counted, hashed."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from triplane.adapters.s3.bucket import PART_OCTETS
from triplane.errors import DigestMismatch, TooLarge

WHOLE_OCTETS: Final = PART_OCTETS
"""Content up to this size is sent in one request, under its own name at once: its digest is known before."""


class Incoming:
    """Content on its way in: gathered, counted, hashed."""

    def __init__(self, content: bytes | AsyncIterable[bytes], limit: int) -> None:
        self._content = content
        self._limit = limit
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._rest: AsyncIterator[bytes] | None = None
        self.size = 0

    async def begin(self) -> bytes | None:
        """All of it, when it is small; None when there is more than is sent at once. Raises ``TooLarge``."""
        if isinstance(self._content, bytes | bytearray | memoryview):
            self._rest = _pieces(bytes(self._content))
        else:
            self._rest = aiter(self._content)
        async for chunk in self._rest:
            self._take(chunk)
            if len(self._pending) > WHOLE_OCTETS:
                return None
        return bytes(self._pending)

    async def parts(self) -> AsyncIterator[bytes]:
        """All of it, in pieces worth a call each."""
        assert self._rest is not None
        while True:
            if len(self._pending) >= 1 << 18:
                yield bytes(self._pending)
                self._pending.clear()
            chunk = await anext(self._rest, None)
            if chunk is None:
                break
            self._take(chunk)
        if self._pending:
            yield bytes(self._pending)

    def _take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise TooLarge(f"the content is larger than {self._limit} octets; send less or raise the limit")
        self._hash.update(chunk)
        self._pending += chunk

    def checked(self, expected: str | None) -> str:
        """The hexadecimal digits. Raises ``Corrupt`` if they are not ``expected``."""
        digits = self._hash.hexdigest()
        if expected is not None and digits != expected:
            raise DigestMismatch(
                f"the content is sha256:{digits}, not the expected sha256:{expected}; nothing was stored. "
                "Send the right content or the right digest",
                actual=f"sha256:{digits}",
            )
        return digits


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), WHOLE_OCTETS):
        yield content[start : start + WHOLE_OCTETS]
