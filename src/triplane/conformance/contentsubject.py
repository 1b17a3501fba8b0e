"""What the suite of ``ContentStore`` works on: a store, and hands that reach behind it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from triplane.ports import ContentStore, KeptContent

MISSING: Final = "sha256:" + "0" * 64
LARGE: Final = bytes(range(256)) * 40_000
"""9.8 MiB: several chunks and parts, the last one short."""


@dataclass
class Subject:
    """A store, a hand that changes what it has stored, what it reported as quarantined, and another process's view."""

    store: KeptContent
    """Empty when the suite gets it. Its ``on_quarantine`` appends the digest to ``reported``."""
    other: KeptContent
    """The same store as another process sees it; a backend that lives in one process gives ``store`` again."""
    tamper: Callable[[str, bytes], Coroutine[Any, Any, None]]
    """Puts these octets in the place of the blob's, as a failing disk or an intruder would."""
    reported: list[str] = field(default_factory=list)
    tick: float = 0.05
    """Seconds that this backend's clock can tell apart."""


Opening = Callable[[], AbstractAsyncContextManager[Subject]]
"""Each call opens another store, empty and apart from the others; it is gone behind the context."""


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def stream(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def read(store: ContentStore, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.resolve(digest)])


async def digests(store: ContentStore) -> list[str]:
    return [digest async for digest in store.list_digests()]
