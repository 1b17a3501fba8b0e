"""Reads what a new Task waits for, directly and indirectly, as it is stored now; bounded, for somebody waits."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from triplane.admission.asked import Reads
from triplane.domain.ancestry import stored_dependencies

MAX_ANCESTORS: Final = 512
"""Tasks that one admission reads; a Task that waits for more, directly and indirectly, is refused."""
_AT_ONCE: Final = 16


class TooManyAncestors(ValueError):
    """More Tasks than one admission reads."""


async def with_ancestors(reads: Reads, namespace: str, new: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """``new`` (Task name to what it waits for), and the same of every stored Task they wait for.

    A name without an object is left out: a dangling reference. Raises ``TooManyAncestors``.
    """
    known: dict[str, Sequence[str]] = dict(new)
    asked = set(new)
    level = _beyond(new.values(), asked)
    while level:
        asked |= level
        if len(asked) - len(new) > MAX_ANCESTORS:
            raise TooManyAncestors
        found = await _read(reads, namespace, sorted(level))
        known |= found
        level = _beyond(found.values(), asked)
    return known


def _beyond(waits: Iterable[Sequence[str]], asked: set[str]) -> set[str]:
    return {name for names in waits for name in names} - asked


async def _read(reads: Reads, namespace: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> Mapping[str, Any] | None:
        async with free:
            return await reads.get("Task", namespace, name)

    found = await asyncio.gather(*(one(name) for name in names))
    return {name: stored_dependencies(task) for name, task in zip(names, found, strict=True) if task is not None}
