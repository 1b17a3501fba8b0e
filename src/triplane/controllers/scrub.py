"""Reads every blob again, at a bounded rate, so that damage is found before it is needed.

Reading verifies: the store itself moves aside what is wrong and reports it (``blob.quarantined``), once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from triplane.domain.scrubbing import Pace, Scrubbed
from triplane.errors import BlobMissing, Corrupt, Unavailable
from triplane.ports import Clock, KeptContent

Sleep = Callable[[float], Awaitable[None]]


async def scrub(
    content: KeptContent,
    pace: Pace,
    clock: Clock,
    *,
    after: str = "",
    until: str | None = None,
    most: int | None = None,
    seen: Callable[[int], None] = lambda _: None,
    sleep: Sleep = asyncio.sleep,
) -> Scrubbed:
    """Verify the blobs that come after ``after``, up to ``until``, at most ``most`` of them: a share each day is a
    scrub as well. ``seen`` is told the octets of each.

    Blobs that go meanwhile are nobody's loss. Raises ``Unavailable`` only when the store cannot be listed.
    """
    began = clock.monotonic()
    checked, octets, last, ended = 0, 0, after, True
    bad: list[str] = []
    unreadable: list[str] = []
    async for digest in content.list_digests():  # also where no file is in a blob's place
        if digest <= after:
            continue
        if until is not None and digest > until:
            break
        if most is not None and checked == most:
            ended = False
            break
        checked, last, before = checked + 1, digest, octets
        try:
            async for chunk in content.resolve(digest):
                octets += len(chunk)
                pause = pace.pause(octets, clock.monotonic() - began)
                if pause > 0:
                    await sleep(pause)
        except Corrupt:
            bad.append(digest)
        except BlobMissing:
            checked -= 1
        except Unavailable:
            unreadable.append(digest)
        seen(octets - before)
    return Scrubbed(checked, octets, tuple(bad), tuple(unreadable), "" if ended else last)
