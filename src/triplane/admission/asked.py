"""What the API server asks of a request, and what a check answers: every check has one shape.

A check is ``async (Asked, Reads) -> Outcome``. All of one request run side by side on the same ``Reads``, which asks
the API server at most once for each object: they judge one and the same view.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from triplane.api.policy import Operation
from triplane.domain.admission import Violation


class Reads(Protocol):
    """Uncached reads as the webhook's account."""

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The object as stored now, None when there is none; raises ``Unavailable``, ``Forbidden``."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """The request of one AdmissionReview (``admission.k8s.io/v1``)."""

    uid: str
    operation: Operation
    kind: str
    namespace: str
    name: str
    """One made of ``generateName`` too."""
    object: Mapping[str, Any]
    old: Mapping[str, Any] | None
    """As stored; None at CREATE."""
    user: Mapping[str, Any]
    """``userInfo``: who asks, as the API server authenticated them."""
    dry_run: bool
    """Nothing may come of it but the answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check says."""

    violations: tuple[Violation, ...] = ()
    """Each stands in the way."""
    warnings: tuple[str, ...] = ()
    """Shown to the user, who gets through."""
    audit: Mapping[str, str] = field(default_factory=dict)
    """For the API server's audit log: key (without prefix) to text."""


class Check(Protocol):
    """One layer of admission."""

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """Judge; writes nothing. Raises ``TriplaneError`` when that cannot be done now: the request is refused."""
        ...


class OneView:
    """Reads of one request: an object is read once, however many checks need it."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: dict[tuple[str, str, str], asyncio.Task[Mapping[str, Any] | None]] = {}

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """As of the first time it was asked for."""
        key = (kind, namespace, name)
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._read(*key))
        # Shielded: a check that is given up must not take the answer away from the others.
        return await asyncio.shield(self._known[key])

    async def close(self) -> None:
        """Give up what is still being read."""
        for task in self._known.values():
            task.cancel()
        await asyncio.gather(*self._known.values(), return_exceptions=True)

    async def _read(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return await self._reads.get(kind, namespace, name)
