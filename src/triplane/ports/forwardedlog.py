"""An event log that hands everything but ``append`` on to another."""

from collections.abc import AsyncIterator, Mapping, Sequence

from triplane.audit.model import EventFilter, Recorded, Verification
from triplane.audit.verifying import Given
from triplane.domain.collection import ArchivedReferences
from triplane.ports.log import EventLog


class ForwardedLog:
    """What is the same for every log that does something of its own at each append."""

    def __init__(self, inner: EventLog) -> None:
        self._inner = inner

    @property
    def origin(self) -> str:
        """See ``EventLog.origin``."""
        return self._inner.origin

    async def get(self, event_id: str) -> Recorded | None:
        """See ``EventLog.get``."""
        return await self._inner.get(event_id)

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """See ``EventLog.get_many``."""
        return await self._inner.get_many(event_ids)

    async def query(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """See ``EventLog.query``."""
        return await self._inner.query(where, after=after, limit=limit, newest_first=newest_first)

    async def head(self) -> tuple[int, str]:
        """See ``EventLog.head``."""
        return await self._inner.head()

    async def time_at(self, seq: int) -> str:
        """See ``EventLog.time_at``."""
        return await self._inner.time_at(seq)

    async def archived_references(self) -> ArchivedReferences:
        """See ``EventLog.archived_references``."""
        return await self._inner.archived_references()

    def stream(self, where: EventFilter = EventFilter(), *, after: int = -1) -> AsyncIterator[Recorded]:
        """See ``EventLog.stream``."""
        return self._inner.stream(where, after=after)

    async def verify_chain(
        self,
        *,
        first: int = 0,
        last: int | None = None,
        given: Given = Given(),  # frozen
    ) -> Verification:
        """See ``EventLog.verify_chain``."""
        return await self._inner.verify_chain(first=first, last=last, given=given)

    async def begin_epoch(self) -> int:
        """See ``EventLog.begin_epoch``."""
        return await self._inner.begin_epoch()

    async def check_epoch(self) -> None:
        """See ``EventLog.check_epoch``."""
        await self._inner.check_epoch()

    async def close(self) -> None:
        """See ``EventLog.close``."""
        await self._inner.close()
