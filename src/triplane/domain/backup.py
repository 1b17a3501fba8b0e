"""What a backup says of itself: its manifest, written last, and what must be true of one before it is restored.

A set is the database at one instant (one file per table) and a list of the blobs that instant needs. The manifest
names every file by SHA-256 and every log by size, head and Merkle root, so that whoever restores it can tell whether
they have what was taken. See docs/how-to/backup-and-restore.md.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triplane.audit.checkpoint import Checkpoint
from triplane.audit.digest import canonical_json
from triplane.domain.continuity import Finding, Held, Standing, judge
from triplane.errors import Contradicted, Corrupt

FORMAT: Final = "triplane.dev/backup/v1"
SCHEMAS: Final = ("log", "graph", "sessions")
_LINE = re.compile(r"(sha256:[0-9a-f]{64}) ([0-9]{1,19})")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileFacts(_Part):
    """A file of the set, as it must be found again."""

    sha256: Sha256
    octets: Count


class TableFile(_Part):
    """One table, in PostgreSQL's binary COPY format, in ``tables/<schema>.<table>``."""

    schema_name: Annotated[str, Field(pattern=r"^(log|graph|sessions)$")]
    table: Identifier
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1, strict=False)]
    rows: Count
    content: FileFacts

    @property
    def name(self) -> str:
        return f"{self.schema_name}.{self.table}"


class Counter(_Part):
    """Where a column that numbers its rows by itself goes on."""

    schema_name: Annotated[str, Field(pattern=r"^(log|graph|sessions)$")]
    table: Identifier
    column: Identifier
    last: Count


class OriginFacts(_Part):
    """One log of the database: the current one, or one that was closed."""

    origin: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,252}/[A-Za-z0-9]{1,64}$")]
    current: bool
    size: Count
    head: Sha256
    """Leaf hash of the last entry; zeros of an empty log."""
    root: Sha256
    """RFC 6962 root over all entries, recomputed from their octets."""
    checkpoint: str | None
    """The latest signed checkpoint among them, whose root was recomputed too; None before the first."""
    archived: Count
    """Entries below this are in an archive, which is backed up apart; of them the set has the leaf hashes."""

    def as_checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.size, bytes.fromhex(self.root))


class ListFile(_Part):
    """A list of blobs, one line each: digest, space, octets (of absent ones 0)."""

    content: FileFacts
    count: Count
    octets: Count
    """Of all blobs named in it."""


class Manifest(_Part):
    """The whole set."""

    format: Literal["triplane.dev/backup/v1"]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
    program: str
    revision: Annotated[str, Field(pattern=r"^\d{4}$")]
    """Of the database schema."""
    origins: Annotated[tuple[OriginFacts, ...], Field(min_length=1, strict=False)]
    tables: Annotated[tuple[TableFile, ...], Field(min_length=1, strict=False)]
    counters: Annotated[tuple[Counter, ...], Field(strict=False)]
    blobs: ListFile
    erased: ListFile
    """Blobs that the log says were erased on purpose."""
    lost: ListFile
    """Blobs that entries need, that were not there, and that nothing says were erased."""
    secrets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_./-]{0,200}$")], FileFacts]
    """Private files, by their place in the folder of secrets; empty unless they were asked for."""

    @property
    def current(self) -> OriginFacts:
        """The log that new entries go to."""
        return next(item for item in self.origins if item.current)

    def files(self) -> Iterator[tuple[str, FileFacts]]:
        """Every file of the set, by its path; blobs are not files of a set."""
        yield from ((f"tables/{table.name}", table.content) for table in self.tables)
        yield from (("blobs", self.blobs.content), ("blobs-erased", self.erased.content))
        yield "blobs-lost", self.lost.content
        yield from ((f"secrets/{name}", facts) for name, facts in self.secrets.items())


def encode(manifest: Manifest) -> bytes:
    """The RFC 8785 octets, ended by a line feed."""
    return canonical_json(manifest.model_dump(mode="json")) + b"\n"


def decode(octets: bytes, where: str) -> Manifest:
    """Read one; raises ``Corrupt``, naming ``where``, for anything but what ``encode`` writes."""
    try:
        found = Manifest.model_validate(orjson.loads(octets))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise Corrupt(f"{where} is no manifest of a backup ({_first(error)}): take it from another copy") from error
    if encode(found) != octets:
        raise Corrupt(f"{where} is not spelled as it was written (RFC 8785): it was altered, take it from another copy")
    if sum(item.current for item in found.origins) != 1 or len({item.origin for item in found.origins}) != len(
        found.origins
    ):
        raise Corrupt(f"{where} must name one current log and each log once: take it from another copy")
    if len({table.name for table in found.tables}) != len(found.tables) or any(
        ".." in path.split("/") for path in found.secrets
    ):
        raise Corrupt(f"{where} names a file twice, or one outside its set: take it from another copy")
    return found


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


@dataclass(frozen=True, slots=True)
class Blob:
    """A line of a list."""

    digest: str
    octets: int

    @property
    def line(self) -> bytes:
        return f"{self.digest} {self.octets}\n".encode()


def parse_line(line: bytes, where: str) -> Blob:
    """Raises ``Corrupt``."""
    found = _LINE.fullmatch(line.decode("ascii", "replace").removesuffix("\n"))
    if found is None or not line.endswith(b"\n"):
        raise Corrupt(f"{where}: {line[:100]!r} is no digest and number of octets: take the file from another copy")
    return Blob(found.group(1), int(found.group(2)))


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that somebody kept, and where."""

    place: str
    checkpoint: Checkpoint


def judged_by_size(manifest: Manifest, anchors: Iterable[Seen]) -> tuple[list[Finding], list[Seen]]:
    """What can be said before anything is loaded: how the set stands to anchors of its own size and larger ones, and
    of other logs; and the smaller anchors, whose roots are not known yet (``check_roots``)."""
    logs = {item.origin: item.as_checkpoint() for item in manifest.origins}
    findings: list[Finding] = []
    smaller: list[Seen] = []
    for seen in anchors:
        head = logs.get(seen.checkpoint.origin, manifest.current.as_checkpoint())
        if seen.checkpoint.origin == head.origin and seen.checkpoint.size < head.size:
            smaller.append(seen)
        else:
            findings.append(judge(Held(seen.place), seen.checkpoint, head))
    return findings, smaller


def refuse_contradicted(findings: Iterable[Finding], where: str, *, accept_rollback: bool) -> str:
    """What was accepted, empty when nothing had to be. Raises ``RestoreBehind`` when entries that were published would
    be taken back and that was not accepted, ``Contradicted`` for a fork and another log, which nobody can accept."""
    behind: list[Finding] = []
    for finding in findings:
        if finding.standing is Standing.ROLLED_BACK:
            behind.append(finding)
        elif finding.contradicts:
            raise Contradicted(
                f"the backup {where} cannot be restored: {finding.message}. It is of another installation, or one of "
                "the two was forged: keep both, trust neither, and compare with other anchors and witnesses"
            )
    if not behind:
        return ""
    told = "; ".join(finding.message for finding in behind)
    if accept_rollback:
        return told
    raise RestoreBehind(
        f"the backup {where} is older than what was published: {told}. Restore a newer backup. If there is none, begin "
        "a new log in a home of its own, and restore this one elsewhere with --accept-rollback as evidence, to be "
        "exported and verified; going on with it is what every witness and auditor who has seen more will refuse"
    )


def check_roots(origin: str, smaller: Iterable[Seen], roots: Mapping[int, bytes], where: str) -> None:
    """``roots``: of the loaded log, by size. Raises ``Contradicted`` when it is not the log that an anchor tells of."""
    findings = [
        judge(Held(seen.place), seen.checkpoint, Checkpoint(origin, max(roots), roots[seen.checkpoint.size]))
        for seen in smaller
        if seen.checkpoint.origin == origin
    ]
    refuse_contradicted(findings, where, accept_rollback=False)


class RestoreBehind(Contradicted):
    """The backup is older than what was published of its log."""
