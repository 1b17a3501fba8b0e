"""Takes back permits when something above them changes: what was decided on its old generation is claimed no more.

Every launch decides on what the API server holds then; this is for permits that were written a moment before and not
yet claimed. Without it they would live out their ten seconds.
"""

from typing import Final

from triplane.controllers.context import Context
from triplane.controllers.key import Key

KINDS: Final = frozenset({"Graph", "Node", "Agent", "Tool"})
"""Whose specs permits of others rest on. Policies do the same themselves (``controllers.policy``)."""


class Narrowing:
    """Remembers the generations it has seen; an operator that begins takes back everything once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, int] = {}

    async def begin(self) -> None:
        """Whatever changed while no operator ran: no permit of that time is claimed any more."""
        await self._context.sessions.void_permits(None, "OperatorStarted: what it rests on may have changed")
        for kind in KINDS:
            for obj in self._context.index.list(kind):
                self._seen[obj["metadata"]["uid"]] = obj["metadata"].get("generation", 1)

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

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._seen.pop(uid, None)
