"""``verify_chain`` over Postgres: chunks checked by several workers, joined in order, the first break named.

No snapshot is held over the whole: what is committed does not change, and entries are committed in the order of their
numbers, so everything before a head that was read stays to be found. A snapshot held for hours would keep the server
from clearing away old versions of the head row, and so slow every append.

What a chunk's checker did not find sound, or what does not join, is read again here, row by row, by ``ChainVerifier``,
which knows the reasons. So nothing is reported that only a fast path believes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, LiteralString

import psycopg

from triplane.adapters.postgres.archivecheck import check_archived
from triplane.adapters.postgres.checkers import Checkers
from triplane.adapters.postgres.chunks import Chunk
from triplane.adapters.postgres.indexmap import IndexMap, index_map
from triplane.adapters.postgres.stayed import check_references, check_stayed
from triplane.audit.chain import BreakReason, ChainVerifier, StoredEntry, broken_at
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV, Break, Verification
from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import Given, Progress, Segment, Trunk, check_range, segment_of
from triplane.errors import Corrupt, InvalidInput, Unavailable

CHUNK: Final = 16 * WIDTH
_ROUNDS: Final = 3
"""A sweep goes on with what was appended meanwhile, this often: under constant load it must end too."""
_ROWS: Final = 2000
_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OCTETS: Final = "SELECT octets FROM log.entries WHERE origin = %s AND seq = %s"
_HEAD: Final = "SELECT size, leaf, time FROM log.heads WHERE origin = %s"
_LAST: Final = "SELECT seq FROM log.entries WHERE origin = %s ORDER BY seq DESC LIMIT 1"
_STAYED_LEAF: Final = "SELECT leaf FROM log.archived_entries WHERE origin = %s AND seq = %s"
_BEHIND: Final = "SELECT seq FROM log.entries WHERE origin = %s AND seq >= %s ORDER BY seq LIMIT 1"
_SELECT: Final = """
    SELECT e.seq, e.octets, e.leaf, i.seq, i.body_sha256,
        e.id, e.stream, e.type, e.time, e.actor, e.kind, e.namespace, e.name, e.uid  -- as chain.PROJECTIONS
    FROM log.entries e LEFT JOIN log.entry_ids i ON i.origin = e.origin AND i.id = e.id
    WHERE e.origin = %s AND e.seq >= %s AND e.seq < %s ORDER BY e.seq"""
_COUNT: Final = """
    SELECT (SELECT size FROM log.heads WHERE origin = %s), (SELECT count(*) FROM log.entry_ids WHERE origin = %s)"""
_UNIQUE: Final = """
    SELECT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = 'log.entry_ids'::regclass
        AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL
        AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) = ARRAY['id', 'origin'])"""
_STRAY: Final = """
    SELECT i.seq, i.id FROM log.entry_ids i
    WHERE i.origin = %s AND i.seq >= %s AND NOT EXISTS (
        SELECT 1 FROM log.entries e WHERE e.origin = i.origin AND e.seq = i.seq AND e.id = i.id)
    ORDER BY i.seq LIMIT 1"""
_ARCHIVE: Final = """
    SELECT upto_seq, leaf, root, place FROM log.archives WHERE origin = %s ORDER BY upto_seq DESC LIMIT 1"""
_ARCHIVED: Final = "SELECT seq, leaf, time FROM log.archived_entries WHERE origin = %s AND seq < %s ORDER BY seq"
_FOREVER: Final = 2**53

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Range:
    """What is to be verified."""

    origin: str
    first: int
    last: int | None
    given: Given


async def sweep(connection: Connection, conninfo: str, asked: Range) -> Verification:
    """Verify ``first..last`` of the log, to the head (and against it) when ``last`` is None."""
    async with aclosing(Checkers(conninfo, asked.origin, asked.given.processes)) as checkers:
        return await _Sweep(connection, checkers, asked).run()


class _Sweep:
    def __init__(self, connection: Connection, checkers: Checkers, asked: Range) -> None:
        self._connection = connection
        self._checkers = checkers
        self._asked = asked
        self._origin = asked.origin
        self._index = IndexMap((), ())
        self._trunk: Trunk
        self._boundary = 0
        """What was archived when this began."""
        self._archived = 0
        self._parted = False

    async def run(self) -> Verification:
        """Everything; the first break ends it."""
        broken = await self._begin()
        if broken is None:
            broken = await self._to_end()
        if broken is None and self._asked.last is None and not self._parted:
            broken = self._trunk.beyond()
        if broken is not None:
            await self._refuse_moved(broken)
        return self._trunk.result(self._origin, broken)

    async def _begin(self) -> Break | None:
        given, first = self._asked.given, self._asked.first
        if first or self._asked.last is not None:
            check_range(self._origin, first, self._asked.last, await self._length())
        archive = await self._one(_ARCHIVE, (self._origin,))
        if archive is not None and None in archive:
            raise Corrupt(f"what log.archives holds of {self._origin} is NULL: restore the log from a backup")
        self._boundary = 0 if archive is None else archive[0]
        if archive is not None and (first if given.start is None else given.start.size) < archive[0]:
            return await self._behind_archive(archive)
        if given.start is not None:
            if first not in (0, given.start.size) or given.start.size % WIDTH:
                raise InvalidInput(f"verification goes on behind entry {given.start.size}, it cannot begin at {first}")
            self._trunk = Trunk(given.start.size, given, given.start.leaf, tree=True)
        elif first == 0:
            self._trunk = Trunk(0, given, GENESIS_PREV, tree=True)
        else:
            edge = await self._edge(first)
            self._trunk = Trunk(first, given, edge or "", tree=False)
            if edge is None:
                return self._edgeless(first)
        return None

    async def _length(self) -> int:
        """How many entries there are, by the head row or by the last of them, whichever says more."""
        size, _, _ = await self._head()
        last = await self._one(_LAST, (self._origin,))
        return size if last is None else max(size, last[0] + 1)

    async def _edge(self, first: int) -> str | None:
        """Leaf hash of the entry before ``first``, of its octets; where they are archived, the one that stayed."""
        if first == 0:
            return GENESIS_PREV
        if row := await self._one(_OCTETS, (self._origin, first - 1)):
            return leaf_hash(row[0] or b"").hex()
        stayed = await self._one(_STAYED_LEAF, (self._origin, first - 1)) if first <= self._boundary else None
        return None if stayed is None or stayed[0] is None else bytes(stayed[0]).hex()

    @staticmethod
    def _edgeless(first: int) -> Break:
        return broken_at(first - 1, BreakReason.ENTRY_MISSING, f"entry {first - 1}, the left edge, is missing")

    async def _behind_archive(self, archive: tuple[Any, ...]) -> Break | None:
        """Begin where the archive ends, with the tree made of the leaf hashes that stayed. They are shown to be the
        signed ones when the tree is compared with checkpoints, those of fewer entries while it grows."""
        upto, leaf, root, place = archive
        if self._asked.first or (self._asked.last is not None and self._asked.last < upto):
            raise InvalidInput(
                f"entries 0 to {upto - 1} of {self._origin} are archived ({place}): verify them there, and here from "
                f"{upto} on, or without --first and --last"
            )
        self._archived = upto
        self._trunk = trunk = Trunk(0, replace(self._asked.given, start=None, agreed=0), GENESIS_PREV, tree=True)
        async with self._snapshot(), self._connection.cursor("archived", binary=True) as cursor:
            await cursor.execute(_ARCHIVED, (self._origin, upto))
            while rows := await cursor.fetchmany(CHUNK):
                if broken := await self._join_archived(rows):
                    return broken
        if trunk.next != upto:
            return self._leafless(trunk.next)
        state = trunk.state
        if state is None or state.root() != root:
            led = "none" if state is None else state.root().hex()
            message = f"the leaf hashes of entries 0 to {upto - 1} lead to root {led}, archived were {root.hex()}"
            return broken_at(0, BreakReason.CHECKPOINT_MISMATCH, message)
        trunk.first, trunk.prev = upto, leaf.hex()
        broken = await self._stayed(upto) and await self._stayed(upto)  # the first look may meet an archiving's end
        # What told of the archiving may be gone; the chain says from where.
        if broken is not None and broken.seq >= upto:
            found = await self._to_end()
            return found if found is not None and found.seq < broken.seq else broken
        if broken is None and self._asked.given.archived is not None:
            broken = await check_archived(self._connection, self._origin, upto, self._asked.given.archived)
        if broken is None:  # after the archive, which names an entry where this can name the whole table only
            async with self._snapshot():
                broken = await check_references(self._connection, self._origin, upto)
        return broken

    async def _join_archived(self, rows: Sequence[tuple[Any, ...]]) -> Break | None:
        """Have the tree grow by these leaf hashes; the first that is missing, or the checkpoint that differs."""
        trunk = self._trunk
        for number, (seq, leaf, time) in enumerate(rows, trunk.next):
            if seq != number or leaf is None or time is None:
                return self._leafless(number)
        leaves, end = [row[1] for row in rows], trunk.next + len(rows)
        edges = (trunk.next, trunk.prev, rows[0][2], rows[-1][2])
        segment = await asyncio.to_thread(segment_of, leaves, trunk.wanted(trunk.next, end), edges, tree=True)
        return trunk.join(segment)

    def _leafless(self, seq: int) -> Break:
        message = f"entry {seq} is archived; its leaf hash and time, which stay, are missing"
        return broken_at(seq, BreakReason.ENTRY_MISSING, message)

    async def _stayed(self, upto: int) -> Break | None:
        """Whether what stayed is sound, in a snapshot of its own: in one that is older than the end of an archiving,
        nothing is in a partition that took another's place."""
        async with self._snapshot():
            size, _, _ = await self._head()
            return await check_stayed(self._connection, self._origin, upto, size)

    async def _refuse_moved(self, broken: Break) -> None:
        """Raise ``Unavailable`` when what seems broken was archived since this began: it left meanwhile."""
        archive = await self._one(_ARCHIVE, (self._origin,))
        if archive is not None and (archive[0] or 0) > max(self._boundary, broken.seq):
            raise Unavailable(
                f"entries before {archive[0]} of {self._origin} were archived while they were verified: verify again"
            )

    async def _to_end(self) -> Break | None:
        """To the end of what was asked for."""
        return await (self._to_head() if self._asked.last is None else self._to(self._asked.last + 1))

    async def _to_head(self) -> Break | None:
        """To the head, and on to what was appended meanwhile."""
        for _ in range(_ROUNDS):
            begun = self._trunk.next
            size, leaf, time = await self._head()
            if size < begun:
                return await self._diagnosed(begun, None)
            part = self._asked.given.part
            if part is not None and self._trunk.first + part < size:
                self._parted = True
                return await self._to(self._trunk.first + part)
            if broken := await self._to(size):
                return broken
            differs = (
                self._trunk.prev != leaf.hex()
                or (self._trunk.time and self._trunk.time != time)
                or (size == begun and await self._one(_BEHIND, (self._origin, size)))
            )
            if differs and (broken := await self._diagnosed(max(self._trunk.first, size - CHUNK), None)):
                return broken
            if self._trunk.next == begun:
                break
        return await self._index_problem() if self._asked.first == 0 else None

    async def _to(self, end: int) -> Break | None:
        """Check everything before ``end``."""
        self._index = await index_map(self._connection)
        async with aclosing(self._segments(end)) as segments:
            async for chunk, segment in segments:
                if segment is None or not self._trunk.continues(segment):
                    broken = await self._diagnosed(chunk.first, chunk.end)
                    if broken is None:
                        raise Corrupt(
                            f"entries {chunk.first} to {chunk.end - 1} of {self._origin} were refused by one check and "
                            "taken by another: verify again; if it stays so, report it with these entries"
                        )
                    return broken
                if broken := self._trunk.join(segment):
                    return broken
                self._tell(end)
        return None

    async def _segments(self, end: int) -> AsyncGenerator[tuple[Chunk, Segment | None]]:
        """What the checkers found, in order; as many chunks are at work as there are checkers, and one more each."""
        chunks = self._chunks(self._trunk.next, end)
        under_way: list[tuple[Chunk, asyncio.Task[Segment | None]]] = []
        try:
            while True:
                under_way.extend(
                    (chunk, asyncio.create_task(self._checkers.check(chunk)))
                    for chunk in islice(chunks, 2 * self._checkers.count - len(under_way))
                )
                if not under_way:
                    return
                chunk, task = under_way[0]
                segment = await task
                under_way.pop(0)
                yield chunk, segment
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    def _chunks(self, first: int, end: int) -> Iterator[Chunk]:
        tree = self._trunk.has_tree
        while first < end:
            until = min(end, first - first % CHUNK + CHUNK)
            yield Chunk(first, until, self._index.blocks(first, until), self._trunk.wanted(first, until), tree)
            first = until

    def _tell(self, end: int) -> None:
        tell = self._asked.given.tell
        if tell is not None:
            trunk = self._trunk
            tell(Progress(trunk.next - trunk.first, end - trunk.first, trunk.state))

    async def _diagnosed(self, first: int, end: int | None) -> Break | None:
        """The first break among these entries, row by row; without ``end``, to the head and against it."""
        if first == self._trunk.next:
            verifier = ChainVerifier.following(self._origin, first, self._trunk.prev, self._trunk.time)
        elif (edge := await self._edge(first)) is None:
            return self._edgeless(first)
        else:
            verifier = ChainVerifier.following(self._origin, first, edge, "")
        async with self._snapshot():
            size, leaf, time = await self._head()
            async with self._connection.cursor("sweep", binary=True) as cursor:
                await cursor.execute(_SELECT, (self._origin, verifier.next, _FOREVER if end is None else end))
                while verifier.broken is None and (rows := await cursor.fetchmany(_ROWS)):
                    await asyncio.to_thread(_feed, verifier, rows)
            if end is None:
                verifier.close(size, leaf.hex(), time)
            else:
                verifier.expect(end)
        return verifier.broken

    async def _index_problem(self) -> Break | None:
        """Whether the id index holds anything beside what its entries need; those were found in it one by one."""
        (unique,) = await self._one(_UNIQUE, ()) or (False,)
        if not unique:
            message = "the unique index over ids of log.entry_ids is gone: from entry 0 on, one id may name two entries"
            return broken_at(0, BreakReason.ID_INDEX_MISMATCH, message)
        async with self._snapshot():
            await self._connection.execute("SET LOCAL enable_seqscan = on")  # all of it is read, once
            size, count = await self._one(_COUNT, (self._origin, self._origin)) or (0, 0)
            if size == count:
                return None
            stray = await self._one(_STRAY, (self._origin, self._archived))
        if stray is None:
            message = f"the id index holds {count} ids of {size} entries: some of those before {self._archived} differ"
            return broken_at(0, BreakReason.ID_INDEX_MISMATCH, message)
        message = f"the id index names entry {stray[0]} for {stray[1]}, which is not its id"
        return broken_at(stray[0], BreakReason.ID_INDEX_MISMATCH, message)

    async def _head(self) -> tuple[int, bytes, str]:
        row = await self._one(_HEAD, (self._origin,))
        if row is None or None in row:
            raise Corrupt(f"the head row of {self._origin} is gone: restore the log from a backup")
        return row[0], row[1], row[2]

    async def _one(self, statement: LiteralString, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        cursor = await self._connection.execute(statement, values, binary=True)
        return await cursor.fetchone()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        await self._connection.execute(_SNAPSHOT)
        try:
            yield
        finally:
            if not self._connection.closed:
                await self._connection.execute("ROLLBACK")


def _feed(verifier: ChainVerifier, rows: Iterable[tuple[Any, ...]]) -> bool:
    for seq, octets, leaf, indexed_seq, body, *projected in rows:
        indexed = None if indexed_seq is None else (indexed_seq, body)
        if not verifier.feed(StoredEntry(seq, octets or b"", leaf or b"", tuple(projected), indexed)):
            return False
    return True
