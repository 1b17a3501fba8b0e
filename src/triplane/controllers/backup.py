"""Taking a backup: the database at one instant, and every blob that this instant names.

Order is what makes the set whole while everybody goes on working. The snapshot first: whatever it names was stored
before. Then the list of what is stored, holds on it, and the copies, so that a collector which runs meanwhile takes
nothing away. The manifest comes last. A blob that was erased on purpose is not copied, and taken out of earlier sets as
well: erasure reaches the backups.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex

import orjson

from triplane.audit.checkpoint import parse_checkpoint
from triplane.audit.digest import digest_of_bytes, digest_of_hex
from triplane.audit.entry import format_time
from triplane.audit.merkle import EMPTY_ROOT, CompactRange, leaf_hash
from triplane.audit.model import JsonObject
from triplane.domain.backup import FORMAT, Blob, FileFacts, ListFile, Manifest, OriginFacts, TableFile, decode, encode
from triplane.domain.collection import SPEAKS_OF_BLOBS, digests_in, octets_of
from triplane.errors import BlobMissing, Conflict, Corrupt, NotFound
from triplane.failpoint import failpoint
from triplane.ports import KeptContent
from triplane.ports.backup import BackupFolder, BackupSet, DatabaseSnapshot, Head, TableShape

HOLD_SECONDS = 24 * 3600.0
"""For a run that dies; one that ends lets go at once."""
AT_ONCE = 4
Progress = Callable[[str], None]
_ENTRIES = "log.entries"
_OVERLAP = 71 + 64
"""Octets of a digest that may lie in the chunk before, and those that tell where it ends."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it."""

    name: str
    digest: str
    """Of the manifest: whoever keeps it elsewhere can tell whether any octet of the set was altered."""
    manifest: Manifest
    copied: int
    octets: int
    """Of what was copied now."""


@dataclass(slots=True)
class _Named:
    """What the snapshot says of blobs."""

    everywhere: set[bytes] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)
    """In the field ``blobs`` of an entry, archived ones as well: these must be there."""
    erased: set[str] = field(default_factory=set)
    """In an entry ``blob.erased``; those among them that are owned were put again."""
    all: bool = False
    """Take whatever is stored: not everything that names blobs can be read."""

    @property
    def all_digests(self) -> set[str]:
        """Whatever may be a blob."""
        return {digest_of_hex(digest.hex()) for digest in self.everywhere} | self.needed | self.erased


class Backup:
    """Takes one set into a folder."""

    def __init__(
        self,
        snapshot: DatabaseSnapshot,
        content: KeptContent,
        folder: BackupFolder,
        *,
        program: str,
        progress: Progress,
    ) -> None:
        self._snapshot = snapshot
        self._content = content
        self._folder = folder
        self._program = program
        self._progress = progress

    async def take(self, now: datetime, secrets: Sequence[tuple[str, bytes]] = ()) -> Taken:
        """Raises ``Conflict`` when another backup writes there or the sets are of another installation,
        ``InvalidInput`` when the folder is somebody else's, ``Corrupt`` when the log is not what its checkpoint or head
        say, ``Unavailable``. Interrupted anywhere, it leaves earlier sets as they were and its own unfinished."""
        async with self._folder.writing():
            heads = await self._snapshot.logs()
            self._check_sets({head.origin for head in heads})
            written = self._folder.begin(now)
            named = _Named()
            tables = [await self._table(written, shape, named) for shape in await self._snapshot.tables()]
            origins = [await self._origin(head, named) for head in heads]
            there = await self._stored(named)
            kept, copied = await self._copy(there)
            absent = named.all_digests - {blob.digest for blob in kept}
            # Putting a blob gives it an owner, and erasing takes every owner away. That a later entry names it says
            # nothing: a review names what it was about, there or not.
            owned = await self._snapshot.owned(absent | named.erased)
            gone = named.erased - owned
            erased = [Blob(digest, 0) for digest in absent & gone]
            lost = [Blob(digest, 0) for digest in (absent - gone) & (named.needed | owned)]
            await self._folder.erase(gone - {blob.digest for blob in there})
            await self._folder.put_again(blob.digest for blob in kept)
            manifest = Manifest(
                format=FORMAT,
                created=format_time(now),
                program=self._program,
                revision=self._snapshot.revision,
                origins=tuple(origins),
                tables=tuple(tables),
                counters=tuple(await self._snapshot.counters()),
                blobs=await _list(written, "blobs", kept),
                erased=await _list(written, "blobs-erased", erased),
                lost=await _list(written, "blobs-lost", lost),
                secrets={name: await written.write(f"secrets/{name}", [content]) for name, content in secrets},
            )
            failpoint("backup.step")
            octets = encode(manifest)
            await written.finish(octets)
        return Taken(written.name, digest_of_bytes(octets), manifest, len(copied), sum(item.octets for item in copied))

    def _check_sets(self, origins: set[str]) -> None:
        """A folder has one list of what was erased, and one newest set: two installations do not share it."""
        for earlier in self._folder.sets():
            try:
                logs = {item.origin for item in decode(earlier.manifest(), earlier.name).origins}
            except NotFound:  # unfinished
                continue
            except Corrupt as error:
                self._progress(f"damaged: {error}")
                continue
            if not logs & origins:
                raise Conflict(
                    f"the set {earlier.name} in this folder is of {', '.join(sorted(logs))}, another installation than "
                    f"this one ({', '.join(sorted(origins))}): give each a folder of its own"
                )

    # The database

    async def _table(self, written: BackupSet, shape: TableShape, named: _Named) -> TableFile:
        facts = await written.write(f"tables/{shape.name}", self._scanned(shape, named))
        failpoint("backup.step")
        return TableFile(
            schema_name=shape.schema_name,
            table=shape.table,
            columns=shape.columns,
            rows=await self._snapshot.count(shape),
            content=facts,
        )

    async def _scanned(self, shape: TableShape, named: _Named) -> AsyncIterator[bytes]:
        """The rows as they pass by: whatever has the form of a digest is a reference. Entries are looked at apart."""
        before = b""
        async for chunk in self._snapshot.octets(shape):
            if shape.name != _ENTRIES:
                seen = before + chunk
                named.everywhere.update(digests_in(seen))
                before = seen[-_OVERLAP:]
            yield chunk

    async def _origin(self, head: Head, named: _Named) -> OriginFacts:
        """Read the whole log: its root, against head and checkpoint, and what its entries need."""
        note = head.checkpoint
        signed = parse_checkpoint(note)[0] if note is not None else None
        tree, leaf, at_checkpoint = CompactRange(), bytes(32), EMPTY_ROOT
        async for page in self._leaves(head, named):
            for leaf in page:
                tree.add(leaf)
                if signed is not None and tree.size == signed.size:
                    at_checkpoint = tree.root()
            await asyncio.sleep(0)
        if tree.size != head.size or leaf != head.leaf:
            raise Corrupt(
                f"{head.origin} is not backed up: its head says {head.size} entries and leaf {head.leaf.hex()}, there "
                f"are {tree.size} that end in {leaf.hex()}. Run `triplane log verify`, and restore an earlier backup "
                "elsewhere"
            )
        if signed is not None and (signed.size > tree.size or at_checkpoint != signed.root):
            raise Corrupt(
                f"{head.origin} is not backed up: its signed checkpoint of {signed.size} entries has root "
                f"{signed.root.hex()}, the entries lead to {at_checkpoint.hex()}: they were altered. Run "
                "`triplane log verify`, and restore an earlier backup elsewhere"
            )
        return OriginFacts(
            origin=head.origin,
            current=head.current,
            size=head.size,
            head=head.leaf.hex(),
            root=tree.root().hex(),
            checkpoint=note.decode() if note is not None else None,
            archived=head.archived,
        )

    async def _leaves(self, head: Head, named: _Named) -> AsyncIterator[Sequence[bytes]]:
        prev = ""
        async for page in self._snapshot.archived(head):
            named.all = True  # nothing is left out for lack of a name
            prev = page[-1].hex()
            yield page
        needs = await self._snapshot.archived_needs(head)
        if needs is None:
            self._progress(
                f"an earlier version archived entries of {head.origin}: a blob that only they need and that is lost is "
                "not named"
            )
        else:
            named.needed.update(digest_of_hex(digest.hex()) for digest in needs)
        async for page in self._snapshot.kept(head):
            for octets in page:
                _look(octets, named)
        async for page in self._snapshot.entries(head):
            leaves: list[bytes] = []
            for octets in page:
                entry = _look(octets, named)
                if prev and entry["prev"] != prev:
                    raise Corrupt(
                        f"{head.origin} is not backed up: entry {entry['seq']} names {entry['prev']} as its "
                        f"predecessor's leaf hash, that is {prev}: an entry was altered. Run `triplane log verify`, "
                        "and restore an earlier backup elsewhere"
                    )
                leaves.append(leaf_hash(octets))
                prev = leaves[-1].hex()
            yield leaves

    # The blobs

    async def _stored(self, named: _Named) -> list[Blob]:
        """Those of the named blobs that are there."""
        return [
            Blob(blob.digest, blob.size)
            async for blob in self._content.stored()
            if named.all or octets_of(blob.digest) in named.everywhere
        ]

    async def _copy(self, there: Sequence[Blob]) -> tuple[list[Blob], list[Blob]]:
        """Copy what the folder does not have yet: the blobs that are in it now, and those of them that were copied.
        Not what is gone by then (erased a moment ago; damaged, and moved aside by now)."""
        target = self._folder.content()
        sizes: dict[str, int] = {}
        missing: list[Blob] = []
        for blob in there:
            try:
                sizes[blob.digest] = await target.size(blob.digest)  # what is listed in its place may be altered
            except BlobMissing:
                missing.append(blob)
        holder = f"backup-{token_hex(6)}"
        held: list[Blob] = []
        gone: set[str] = set()
        try:
            for blob in missing:
                try:
                    await self._content.hold(blob.digest, holder, HOLD_SECONDS)
                    held.append(blob)
                except BlobMissing:
                    gone.add(blob.digest)
            self._progress(f"{len(held)} of {len(there)} blobs are new")
            waiting = iter(held)

            async def copy() -> None:
                for blob in waiting:
                    try:
                        await target.store(self._content.resolve(blob.digest), expect=blob.digest)
                    except (BlobMissing, Corrupt):
                        gone.add(blob.digest)
                    failpoint("backup.step")

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(copy())
        finally:
            for blob in held:
                await self._content.release(blob.digest, holder)
        kept = [Blob(blob.digest, sizes.get(blob.digest, blob.octets)) for blob in there if blob.digest not in gone]
        return kept, [blob for blob in held if blob.digest not in gone]


def _look(octets: bytes, named: _Named) -> JsonObject:
    """Note what the entry needs; the entry."""
    entry: JsonObject = orjson.loads(octets)
    if entry["type"] in SPEAKS_OF_BLOBS:
        if entry["type"] == "blob.erased":
            named.erased.add(f"sha256:{entry['subject']['uid']}")
    else:
        named.everywhere.update(digests_in(octets))
        named.needed.update(entry["blobs"])
    return entry


async def _list(written: BackupSet, name: str, blobs: Iterable[Blob]) -> ListFile:
    listed = sorted(blobs, key=lambda blob: blob.digest)
    facts: FileFacts = await written.write(name, (blob.line for blob in listed))
    return ListFile(content=facts, count=len(listed), octets=sum(blob.octets for blob in listed))
