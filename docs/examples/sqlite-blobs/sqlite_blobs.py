"""A content store in one SQLite file: an example of a backend of your own (docs/how-to/write-a-backend.md).

Complete, and meant to be read: every operation is one transaction of SQLite, which keeps processes of one machine apart
and makes them durable. It holds a whole blob in memory, so it is for small ones.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote, urlsplit

from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.backends import ContentPlace, OnQuarantine
from triplane.domain.collection import StoredBlob, check_holder
from triplane.errors import (
    BlobMissing,
    BlobQuarantined,
    Conflict,
    Corrupt,
    DigestMismatch,
    Fenced,
    TooLarge,
    Unavailable,
)

CHUNK = 1 << 20
CAP = 256 << 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, content BLOB NOT NULL, stored_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine (digest TEXT NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS holds (digest TEXT, holder TEXT, until REAL NOT NULL, PRIMARY KEY (digest, holder));
CREATE TABLE IF NOT EXISTS readers (id TEXT PRIMARY KEY, digest TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS owner (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS leases (role TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL);
"""


def now() -> float:
    """Seconds since 1970: the store's clock is the machine's."""
    return datetime.now(UTC).timestamp()


class Lease:
    """The right to be the one collector, or scrubber."""

    def __init__(self, store: "SqliteBlobs", role: str, owner: str, seconds: float) -> None:
        self._store, self._role, self._owner, self._seconds = store, role, owner, seconds
        self.began = datetime.now(UTC)

    async def renew(self) -> None:
        """Keep it; ``Fenced`` when it ran out and somebody else took it."""
        with self._store.changing() as database:
            renewed = database.execute(
                "UPDATE leases SET until = ? WHERE role = ? AND owner = ?",
                (now() + self._seconds, self._role, self._owner),
            )
        if renewed.rowcount == 0:
            raise Fenced(f"another {self._role} has the lease of {self._store.path}: stop")


class SqliteBlobs:
    """``triplane.ports.KeptContent`` in one file."""

    def __init__(self, path: Path, on_quarantine: OnQuarantine | None = None) -> None:
        self.path = path
        self._on_quarantine = on_quarantine
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {SCHEMA}")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among all that change the file."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self.path} cannot be used: {error}; try again") from error

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """Bad content in the blob's place is moved aside and replaced."""
        if expect is not None:
            parse_digest(expect)
        octets = await _whole(content, CAP if limit is None else min(limit, CAP))
        digest = digest_of_bytes(octets)
        if expect not in {None, digest}:
            raise DigestMismatch(
                f"the content is {digest}, not the expected {expect}; nothing was stored", actual=digest
            )
        with self.changing() as database:
            there = self._content(digest)
            if bad := there is not None and there != octets:
                self._move_aside(digest)
            database.execute(
                "INSERT INTO blobs VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET stored_at = excluded.stored_at",
                (digest, octets, now()),
            )
        if bad:
            await self._tell(digest)
        return digest

    async def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """Verified before the first octet is handed out."""
        octets = self._get(digest)
        if hashlib.sha256(octets).hexdigest() != parse_digest(digest):
            with self.changing():
                moved = self._content(digest) == octets and self._move_aside(digest)
            if moved:
                await self._tell(digest)
            raise Corrupt(f"{digest} in {self.path} has other content by now; it was moved aside. Store it again")
        reader = token_hex(8)
        with self.changing() as database:
            database.execute("INSERT INTO readers VALUES (?, ?, ?)", (reader, digest, now()))
        try:
            for start in range(0, len(octets), CHUNK):
                yield octets[start : start + CHUNK]
        finally:
            with self.changing() as database:
                database.execute("DELETE FROM readers WHERE id = ?", (reader,))

    async def exists(self, digest: str) -> bool:
        """Whether there is one."""
        parse_digest(digest)
        return self._content(digest) is not None

    async def size(self, digest: str) -> int:
        """Octets."""
        return len(self._get(digest))

    async def delete(self, digest: str) -> bool:
        """Erase it; holds do not bar that."""
        parse_digest(digest)
        with self.changing() as database:
            return database.execute("DELETE FROM blobs WHERE digest = ?", (digest,)).rowcount == 1

    async def list_digests(self) -> AsyncIterator[str]:
        """Ascending."""
        async for blob in self.stored():
            yield blob.digest

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """By digest, ascending, in pages: nobody waits for a slow reader."""
        after = ""
        while page := self._database.execute(
            "SELECT digest, length(content), stored_at FROM blobs WHERE digest > ? ORDER BY digest LIMIT 500", (after,)
        ).fetchall():
            for digest, size, stored_at in page:
                yield StoredBlob(digest, size, datetime.fromtimestamp(stored_at, UTC))
            after = page[-1][0]

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """All conditions in the statement that removes: nothing comes in between."""
        parse_digest(digest)
        with self.changing() as database:
            removed = database.execute(
                "DELETE FROM blobs WHERE digest = :digest AND stored_at < :before"
                " AND NOT EXISTS (SELECT 1 FROM readers WHERE digest = :digest)"
                " AND NOT EXISTS (SELECT 1 FROM holds WHERE digest = :digest AND until > :now)",
                {"digest": digest, "before": before.timestamp(), "now": now()},
            )
            return removed.rowcount == 1

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """Bar ``collect`` for so long."""
        check_holder(holder)
        self._get(digest)
        with self.changing() as database:
            database.execute("INSERT OR REPLACE INTO holds VALUES (?, ?, ?)", (digest, holder, now() + seconds))

    async def release(self, digest: str, holder: str) -> bool:
        """End the hold."""
        parse_digest(digest)
        ended = (digest, check_holder(holder), now())
        with self.changing() as database:
            found = database.execute("DELETE FROM holds WHERE digest = ? AND holder = ? AND until > ?", ended)
            return found.rowcount == 1

    async def held(self) -> frozenset[str]:
        """Digests somebody holds now."""
        rows = self._database.execute("SELECT digest FROM holds WHERE until > ?", (now(),))
        return frozenset(digest for (digest,) in rows)

    @asynccontextmanager
    async def lease(self, seconds: float, role: str = "collector") -> AsyncIterator[Lease]:
        """One holder for each role; a dead one's runs out."""
        owner = token_hex(8)
        with self.changing() as database:
            taken = database.execute(
                "INSERT INTO leases VALUES (:role, :owner, :until) ON CONFLICT (role) DO UPDATE"
                " SET owner = :owner, until = :until WHERE until <= :now",
                {"role": role, "owner": owner, "until": now() + seconds, "now": now()},
            )
        if taken.rowcount == 0:
            raise Conflict(f"another {role} is at work on {self.path}; let it end")
        try:
            yield Lease(self, role, owner, seconds)
        finally:
            with self.changing() as database:
                database.execute("DELETE FROM leases WHERE role = ? AND owner = ?", (role, owner))

    async def owner(self, origin: str) -> str:
        """Whoever asked first."""
        with self.changing() as database:
            database.execute("INSERT INTO owner VALUES (1, ?) ON CONFLICT DO NOTHING", (origin,))
            return str(database.execute("SELECT origin FROM owner").fetchone()[0])

    async def quarantined(self) -> AsyncIterator[str]:
        """Ascending, each as often as it was moved aside."""
        for (digest,) in self._database.execute("SELECT digest FROM quarantine ORDER BY digest").fetchall():
            yield digest

    async def tidy(self, *, before: datetime) -> int:
        """Holds that are over, and readers that died."""
        old = before.timestamp()
        with self.changing() as database:
            holds = database.execute("DELETE FROM holds WHERE until <= ?", (min(old, now()),))
            readers = database.execute("DELETE FROM readers WHERE since < ?", (min(old, now() - 24 * 3600),))
            return holds.rowcount + readers.rowcount

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    def _content(self, digest: str) -> bytes | None:
        row = self._database.execute("SELECT content FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def _get(self, digest: str) -> bytes:
        parse_digest(digest)
        content = self._content(digest)
        if content is not None:
            return content
        if self._database.execute("SELECT 1 FROM quarantine WHERE digest = ?", (digest,)).fetchone():
            raise BlobQuarantined(f"{digest} is quarantined in {self.path}; store the right content again")
        raise BlobMissing(f"no blob {digest} in {self.path}; store it first (it may have been erased: see the log)")

    def _move_aside(self, digest: str) -> bool:
        self._database.execute("INSERT INTO quarantine SELECT digest, content FROM blobs WHERE digest = ?", (digest,))
        return self._database.execute("DELETE FROM blobs WHERE digest = ?", (digest,)).rowcount == 1

    async def _tell(self, digest: str) -> None:
        if self._on_quarantine is not None:
            await self._on_quarantine(digest, str(self.path))


async def _whole(content: bytes | AsyncIterable[bytes], limit: int) -> bytes:
    taken = bytearray()
    if isinstance(content, bytes | bytearray | memoryview):
        taken += content
    else:
        async for chunk in content:
            taken += chunk
            if len(taken) > limit:
                break
    if len(taken) > limit:
        raise TooLarge(f"the content is larger than {limit} octets; send less or raise the limit")
    return bytes(taken)


@asynccontextmanager
async def content(place: ContentPlace) -> AsyncIterator[SqliteBlobs]:
    """The factory behind the entry point: ``TRIPLANE_CONTENT=sqlite:/srv/blobs.db``."""
    store = SqliteBlobs(Path(unquote(urlsplit(place.url).path)), place.on_quarantine)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def under_test() -> AsyncIterator[object]:
    """For ``triplane conformance content --backend sqlite_blobs:under_test``: another empty store each time."""
    from triplane.conformance.contentsubject import Subject  # noqa: PLC0415  # only tests have pytest

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blobs.db"
        reported: list[str] = []

        async def report(digest: str, _place: str) -> None:
            reported.append(digest)

        async def tamper(digest: str, octets: bytes) -> None:
            with store.changing() as database:
                database.execute("UPDATE blobs SET content = ? WHERE digest = ?", (octets, digest))

        store, other = SqliteBlobs(path, report), SqliteBlobs(path)
        try:
            yield Subject(store, other, tamper, reported)
        finally:
            other.close()
            store.close()
