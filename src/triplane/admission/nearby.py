"""Objects that Policies often ask for, kept by a watch: an early word on them may be milliseconds old.

What must be as of now (authority, cycles) is read from the API server; launch, which decides, reads everything from it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from triplane.admission.asked import Reads


class Known(Protocol):
    """All objects of one kind, as a watch tells of them."""

    def find(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The object, if it is known; None also when that cannot be told now."""
        ...


class Nearby:
    """``Reads`` that asks the API server only for what is not known: an object that was just made is found too."""

    def __init__(self, known: Mapping[str, Known], reads: Reads) -> None:
        self._known = known
        self._reads = reads

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """See ``Reads``; as of a moment ago."""
        known = self._known.get(kind)
        found = known.find(namespace, name) if known is not None else None
        return found if found is not None else await self._reads.get(kind, namespace, name)
