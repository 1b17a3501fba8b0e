"""What a backup is taken of and kept in: a database at one instant, an empty one that takes it, and sets of files."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from triplane.domain.backup import Counter, FileFacts, OriginFacts, TableFile
from triplane.errors import TriplaneError
from triplane.ports.content import ContentStore


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table and its columns, in the order of its file."""

    schema_name: str
    table: str
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.schema_name}.{self.table}"


@dataclass(frozen=True, slots=True)
class Head:
    """A log as its head row and its latest checkpoint have it."""

    origin: str
    current: bool
    size: int
    leaf: bytes
    checkpoint: bytes | None
    archived: int
    """Entries below this are kept elsewhere, in an archive; their leaf hashes are still here."""


class DatabaseSnapshot(Protocol):
    """One instant of log, graph and sessions, while others go on writing. Everything is read in that instant."""

    @property
    def revision(self) -> str:
        """Of the schema."""
        ...

    async def tables(self) -> Sequence[TableShape]:
        """All that hold rows, by name."""
        ...

    async def counters(self) -> Sequence[Counter]: ...

    async def owned(self, digests: Collection[str]) -> frozenset[str]:
        """Those of these blobs that belong to a namespace."""
        ...

    async def logs(self) -> Sequence[Head]:
        """The current one, and those that were closed."""
        ...

    def octets(self, table: TableShape) -> AsyncIterator[bytes]:
        """The table's rows, in chunks, in a format that ``EmptyDatabase.load`` takes."""
        ...

    async def count(self, table: TableShape) -> int:
        """Rows that ``octets`` gave."""
        ...

    def archived(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """The leaf hashes of a log's archived entries, in order, in pages."""
        ...

    async def archived_needs(self, log: Head) -> frozenset[bytes] | None:
        """The blobs that a log's archived entries need, in 32 octets each; None where that is not known. Raises
        ``Corrupt`` when it is not what the log says of it."""
        ...

    def kept(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """The octets of those archived entries that stayed in the log as well, in order, in pages."""
        ...

    def entries(self, log: Head) -> AsyncIterator[Sequence[bytes]]:
        """The octets of the entries behind the archived ones, in order, in pages."""
        ...


class EmptyDatabase(Protocol):
    """A database that nobody uses yet. Until ``finish`` every other process refuses it, and all can be repeated."""

    async def begin(self, revision: str) -> None:
        """Claim it and give it the schema of that revision, without rows; what an interrupted restore has left is
        removed. Raises ``NotEmpty`` naming what is there."""
        ...

    async def load(self, tables: Sequence[TableFile], rows: Mapping[str, AsyncIterable[bytes]]) -> None:
        """All or nothing. Raises ``Corrupt`` when a file does not fit its table."""
        ...

    async def count_on(self, counters: Sequence[Counter]) -> None:
        """Let numbered columns go on behind what was loaded."""
        ...

    async def verify(self, facts: OriginFacts, sizes: Collection[int]) -> Mapping[int, bytes]:
        """Verify the whole loaded log as ``EventLog.verify_chain`` does, and against ``facts``; the roots over its
        first entries, by size. Raises ``Corrupt`` with the first bad sequence and the reason."""
        ...

    async def finish(self) -> None:
        """Bring the schema up to date and let others in."""
        ...


class BackupSet(Protocol):
    """The files of one backup."""

    @property
    def name(self) -> str: ...

    async def write(self, path: str, chunks: AsyncIterable[bytes] | Iterable[bytes]) -> FileFacts:
        """A new file, durable; what it is to be known by."""
        ...

    async def finish(self, manifest: bytes) -> None:
        """Until this the set is unfinished, and nobody restores it."""
        ...

    def manifest(self) -> bytes:
        """Raises ``NotFound`` for an unfinished set, ``Corrupt`` for an altered manifest."""
        ...

    def read(self, path: str, facts: FileFacts) -> AsyncIterator[bytes]:
        """In chunks; ``Corrupt``, naming the file, unless it is what the facts say."""
        ...

    def lines(self, path: str, facts: FileFacts) -> AsyncIterator[bytes]:
        """As ``read``, by lines."""
        ...


class BackupFolder(Protocol):
    """Sets beside one another, and the blobs that they share."""

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Be the only writer; sets nobody will finish are removed. Raises ``Conflict``, and ``InvalidInput`` for a
        folder that is somebody else's."""
        ...

    def begin(self, now: datetime) -> BackupSet:
        """A new, unfinished set."""
        ...

    def sets(self) -> Sequence["BackupSet"]:
        """All, oldest first, unfinished ones as well."""
        ...

    def content(self) -> ContentStore:
        """The shared blobs, to be written."""
        ...

    def blob(self, digest: str) -> AsyncIterator[bytes]:
        """A shared blob, verified, changing nothing. Raises ``BlobMissing``, ``Corrupt``."""
        ...

    def erased(self) -> frozenset[str]:
        """Blobs that were taken out of every set since."""
        ...

    async def erase(self, digests: Iterable[str]) -> int:
        """Take blobs out of every set; how many there were."""
        ...

    async def put_again(self, digests: Iterable[str]) -> None:
        """These are there once more: sets that list them give them back."""
        ...


class NotEmpty(TriplaneError):
    """There is something where a backup was to be restored."""
