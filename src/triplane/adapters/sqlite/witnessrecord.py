"""What a witness remembers: per log the latest checkpoint it has vouched for, in one SQLite file.

The comparison with what is remembered and the writing down of the new are one transaction that no other thread or
process of the machine enters meanwhile (``BEGIN IMMEDIATE``), and it is on the disk, with its folder, before anybody
may cosign (``synchronous = EXTRA``). Otherwise two racing requests could both hold against the old record, and two
forks be cosigned; or a crash could forget what was vouched for.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triplane.audit.checkpoint import Checkpoint, parse_checkpoint
from triplane.audit.witness import Accepted, Admitted, Answer, judge, noted, origin_hash
from triplane.errors import Conflict, Corrupt, InvalidInput, Unavailable
from triplane.failpoint import failpoint

FILE: Final = "record.sqlite"
BUSY_SECONDS: Final = 20.0
"""How long a request waits for the others before it is told to come again."""
_APPLICATION: Final = 0x7472776E
"""``PRAGMA application_id``: this file is a witness's record."""
_TABLE = """
    CREATE TABLE latest (
        origin TEXT PRIMARY KEY,
        hash TEXT NOT NULL UNIQUE,
        note BLOB NOT NULL,
        cosignatures BLOB
    ) STRICT"""

_PUT_BACK: Final = (
    "Only a copy made after its last cosignature may be put back; "
    "otherwise make a new witness with another name and key"
)
"""An older one has forgotten what was cosigned since: with it the witness would cosign a fork."""

Judge = Callable[[Admitted, Checkpoint | None], Accepted | Answer]


@dataclass(frozen=True, slots=True)
class Remembered:
    """The latest checkpoint of a log."""

    origin: str
    note: bytes
    """Signed by the log, as it was accepted."""
    cosignatures: bytes | None
    """Signature lines of the witness; None when it ended between writing down and signing."""


class WitnessRecord:
    """Blocking calls, from any thread; several processes may use one file. Raises ``Unavailable`` when the disk cannot
    be written or the others take too long, ``Corrupt`` when the file is damaged."""

    def __init__(self, folder: Path, judged: Judge = judge) -> None:
        """Use the record of ``make``. Raises ``InvalidInput`` when there is none: a witness that has forgotten
        what it cosigned would cosign a fork, so it never begins anew by itself."""
        self._path = folder / FILE
        self._judge = judged
        with self._opened() as connection:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            if found != _APPLICATION:
                raise InvalidInput(f"{self._path} is no record of a witness. {_PUT_BACK}")

    @staticmethod
    def make(folder: Path) -> None:
        """Begin an empty record; one that is there and empty is as good. Raises ``Conflict`` when there is another."""
        path = folder / FILE
        with _errors(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN EXCLUSIVE")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application == _APPLICATION:
                (things,) = connection.execute("SELECT count(*) FROM latest").fetchone()
            elif not things:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            if things:
                raise Conflict(f"{path} is there already: this witness has a record, and keeps it")
            connection.execute("COMMIT")
        path.chmod(0o600)

    def accept(self, request: Admitted) -> Accepted | Answer:
        """Judge the request against what is remembered, and remember it if it holds: durable on return."""
        origin = request.checkpoint.origin
        with self._opened() as connection, self._alone(connection):
            row = connection.execute("SELECT note FROM latest WHERE origin = ?", (origin,)).fetchone()
            found = self._judge(request, None if row is None else parse_checkpoint(row[0])[0])
            if isinstance(found, Accepted):
                connection.execute(
                    "INSERT INTO latest (origin, hash, note) VALUES (?, ?, ?) ON CONFLICT (origin) "
                    "DO UPDATE SET note = excluded.note, cosignatures = NULL",
                    (origin, origin_hash(origin), noted(found)),
                )
        failpoint("witness.recorded")
        return found

    def cosigned(self, origin: str, note: bytes, lines: bytes) -> None:
        """Keep the cosignatures for who asks later, if this is still the latest checkpoint."""
        with self._opened() as connection:
            connection.execute(
                "UPDATE latest SET cosignatures = ? WHERE origin = ? AND note = ?", (lines, origin, note)
            )

    def latest(self, hashed: str) -> Remembered | None:
        """By the hash of its origin (``origin_hash``)."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT origin, note, cosignatures FROM latest WHERE hash = ?", (hashed,)
            ).fetchone()
        return None if row is None else Remembered(*row)

    @contextmanager
    def _alone(self, connection: sqlite3.Connection) -> Iterator[None]:
        """One transaction, alone from its first read on."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call: a fraction of a millisecond, and no thread shares it."""
        with _errors(self._path):
            try:
                opened = sqlite3.connect(
                    f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
                )
            except sqlite3.OperationalError as error:
                raise InvalidInput(f"{self._path} cannot be opened: {error}. {_PUT_BACK}") from error
            with closing(opened) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                yield connection


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} cannot be written now: {error}; nothing was cosigned, try again") from error
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{path} is damaged: {error}; stop this witness. {_PUT_BACK}") from error
