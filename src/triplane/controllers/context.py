"""What every reconciler works with; made once by the registry."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from triplane.audit.digest import canonical_json
from triplane.controllers.decided import Decided
from triplane.controllers.documents import Documents
from triplane.controllers.key import Key
from triplane.controllers.signing import OperatorKeys
from triplane.domain.accounts import Accounts
from triplane.domain.warrant import Ceiling
from triplane.errors import TooLarge
from triplane.ports import (
    Clock,
    Cluster,
    ContentStore,
    Contracts,
    EventLog,
    Expressions,
    GraphStore,
    ObjectIndex,
    PolicyEngine,
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
    expressions: Expressions
    policies: PolicyEngine
    contracts: Contracts
    signing: OperatorKeys
    ceiling: Ceiling = field(default_factory=Ceiling)
    """The root of all authority."""
    accounts: Accounts = field(default_factory=Accounts)
    """Which accounts are one person's."""
    decided: Decided = field(default_factory=Decided)
    """What was decided for good, of the Tasks asked about last; shared by all readers."""
    _documents: Documents = field(default_factory=Documents)

    async def store_json(self, value: Mapping[str, object]) -> str:
        """Put a JSON document into the content store; returns its digest."""
        return await self.content.store(canonical_json(value))

    async def load_json(self, digest: str) -> object:
        """A JSON document from the content store; kept in memory while it is in use. Never change it."""
        kept = self._documents.get(digest)
        if kept is not None:
            return kept
        chunks = []
        size = 0
        async for chunk in self.content.resolve(digest):
            size += len(chunk)
            if size > TEXT_CAP:
                raise TooLarge(f"document {digest} is over {TEXT_CAP} octets")
            chunks.append(chunk)
        document: object = orjson.loads(b"".join(chunks))
        self._documents.put(digest, document, size)
        return document

    async def store_lines(self, lines: Sequence[str]) -> str:
        """Prose for the log: lines in a document, by digest."""
        return await self.store_json({"lines": list(lines)})

    async def load_lines(self, digest: str) -> tuple[str, ...]:
        """What ``store_lines`` put there."""
        document = await self.load_json(digest)
        assert isinstance(document, dict)
        return tuple(document["lines"])
