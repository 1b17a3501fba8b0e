"""The log together with its archive: what was moved there is read there. For what needs every entry once."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from triplane.audit.checkpoint import CheckpointTrust
from triplane.audit.exported import verify_export
from triplane.audit.layout import bundle_of, parse_bundle
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import EventBody, EventFilter, Receipt, Recorded
from triplane.audit.tiles import WIDTH
from triplane.errors import Archived, Conflict, Corrupt, InvalidInput
from triplane.ports import EventLog
from triplane.ports.forwardedlog import ForwardedLog

Read = Callable[[str], bytes]
"""A file of the archive by its path. Raises ``NotFound``, ``InvalidInput``."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What was moved out of a log: verified, and all of it."""

    read: Read
    size: int
    """Entries that are archived. The folder may hold more."""

    def entries(self, first: int) -> list[bytes]:
        """The octets of the 256 entries of the bundle that begins with entry ``first``."""
        tile = bundle_of(first, self.size)
        return parse_bundle(self.read(tile.path), tile.width)


class WholeLog(ForwardedLog):
    """``query`` begins at entry 0 again; all else is the log's own."""

    def __init__(self, inner: EventLog, archive: Archive) -> None:
        super().__init__(inner)
        self._archive = archive

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """See ``EventLog.append``."""
        return await self._inner.append(bodies)

    async def query(
        self,
        where: EventFilter = EventFilter(),  # frozen
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """See ``EventLog.query``, oldest first only."""
        if newest_first:
            raise InvalidInput("an archive is read from its beginning: ask for the oldest first")
        found: list[Recorded] = []
        while after + 1 < self._archive.size and len(found) < limit:
            for recorded in await asyncio.to_thread(self._recorded, (after + 1) // WIDTH * WIDTH):
                if recorded.seq > after and len(found) < limit:
                    after = recorded.seq
                    if where.matches(recorded):
                        found.append(recorded)
        if len(found) < limit:
            found += await self._inner.query(where, after=after, limit=limit - len(found))
        return found

    def _recorded(self, first: int) -> list[Recorded]:
        return [
            Recorded(seq, octets, leaf_hash(octets).hex(), orjson.loads(octets))
            for seq, octets in enumerate(self._archive.entries(first), first)
        ]


async def open_archive(log: EventLog, read: Read, trust: CheckpointTrust) -> Archive:
    """The archive of this log that ``read`` reads, once it was verified against its signed checkpoint.

    Raises ``Corrupt`` when it does not verify, ``Conflict`` when it does not reach to where the log begins.
    """
    verified = await asyncio.to_thread(verify_export, read, trust)
    if verified.fault is not None:
        raise Corrupt(f"the archive does not verify: {verified.fault.message}")
    try:
        await log.query(limit=1)
        archived = 0
    except Archived as gone:
        archived = gone.upto
    if verified.count < archived:
        raise Conflict(f"the archive holds {verified.count} entries, but {archived} are archived: name the whole of it")
    return Archive(read, archived)


async def whole_log(log: EventLog, read: Read, trust: CheckpointTrust) -> WholeLog:
    """The log with its archive: see ``open_archive``."""
    return WholeLog(log, await open_archive(log, read, trust))
