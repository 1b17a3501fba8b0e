"""Takes back permits when something above them changes: what was decided on its old generation is claimed no more.

Every launch decides on what the API server holds then; this is for permits that were written a moment before and not
yet claimed. Without it they would live out their ten seconds.
"""

from collections.abc import Mapping
from typing import Any, Final

from triplane.controllers.context import Context
from triplane.controllers.key import Key

KINDS: Final = frozenset({"Graph", "Node", "Agent", "Tool"})
"""Whose specs permits of others rest on. Policies do the same themselves (``controllers.policy``)."""

SERVING: Final = frozenset({"Agent", "Harness", "Tool"})
"""Without which nothing is begun: what was permitted on one that is gone is claimed no more."""


class Narrowing:
    """Remembers the generations it has seen."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, int] = {}

    async def begin(self, logged: Mapping[str, tuple[int, bool]]) -> None:
        """Void what was permitted before a change that came while no operator ran; ``logged`` is the newest generation
        that is kept of each UID."""
        for kind in sorted(KINDS):
            for obj in self._context.index.list(kind):
                metadata = obj["metadata"]
                self._seen[metadata["uid"]] = logged.get(metadata["uid"], (1, False))[0]
                await self.look(Key(kind, metadata["namespace"], metadata["name"]))

    async def look(self, key: Key) -> None:
        """Void the permits of the namespace if the object's spec is another than before. A new object voids
        nothing: nothing rests on it yet."""
        obj = self._context.index.get(key.kind, key.namespace, key.name) if key.kind in KINDS else None
        if obj is None:
            return
        uid, generation = obj["metadata"]["uid"], obj["metadata"].get("generation", 1)
        if generation > self._seen.get(uid, 1):
            await self._context.sessions.void_permits(key.namespace, f"{key.kind}Changed: {key.kind} {key.name}")
        self._seen[uid] = generation

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        """The object was deleted. Tasks under a Graph or Node that is gone are withdrawn, and so are their permits."""
        metadata = obj["metadata"]
        if kind in SERVING:
            await self._context.sessions.void_permits(
                metadata["namespace"], f"{kind}Deleted: {kind} {metadata['name']}"
            )
        self._seen.pop(metadata["uid"], None)
