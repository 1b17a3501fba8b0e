"""What every reconciler works with; made once by the registry."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from triplane.audit.digest import canonical_json
from triplane.controllers.key import Key
from triplane.errors import TooLarge
from triplane.ports import (
    Clock,
    Cluster,
    ContentStore,
    EventLog,
    GraphStore,
    ObjectIndex,
    SessionStore,
)

TEXT_CAP = 4 * 1024 * 1024


@dataclass(frozen=True)
class Context:
    """Ports and callbacks. ``principal`` maps ``(username, uid)`` to a principal id; ``enqueue`` asks for a
    reconcile of a key after a delay in seconds."""

    cluster: Cluster
    index: ObjectIndex
    log: EventLog
    sessions: SessionStore
    graph: GraphStore
    content: ContentStore
    principal: Callable[[str, str], Awaitable[str]]
    clock: Clock
    enqueue: Callable[[Key, float], None]
    _documents: dict[str, object] = field(default_factory=dict)

    async def store_json(self, value: Mapping[str, object]) -> str:
        """Put a JSON document into the content store; returns its digest."""
        return await self.content.store(canonical_json(value))

    async def load_json(self, digest: str) -> object:
        """A JSON document from the content store; kept in memory (they are immutable and few)."""
        if digest not in self._documents:
            chunks = []
            size = 0
            async for chunk in self.content.resolve(digest):
                size += len(chunk)
                if size > TEXT_CAP:
                    raise TooLarge(f"document {digest} is over {TEXT_CAP} octets")
                chunks.append(chunk)
            if len(self._documents) >= 4096:
                self._documents.clear()
            self._documents[digest] = orjson.loads(b"".join(chunks))
        return self._documents[digest]

    async def store_lines(self, lines: Sequence[str]) -> str:
        """Prose for the log: lines in a document, by digest."""
        return await self.store_json({"lines": list(lines)})

    async def load_lines(self, digest: str) -> tuple[str, ...]:
        """What ``store_lines`` put there."""
        document = await self.load_json(digest)
        assert isinstance(document, dict)
        return tuple(document["lines"])
