"""The error tree. Every message says what is wrong, where, and what to do.

TriplaneError
├── InvalidInput          what the caller sent can never be accepted
│   ├── InvalidEntry      an event body breaks the entry format
│   ├── InvalidExpression  a CEL condition that does not compile, fails on its values, or costs too much
│   ├── InvalidDigest     not ``sha256:`` and 64 lowercase hex digits
│   ├── InvalidProof      a Merkle proof is malformed, or proves something else
│   └── InvalidNote       a note, checkpoint or key is malformed, or not signed by whom it must be
├── Conflict              the request contradicts what is recorded
│   ├── IdReused          same event id, other body
│   ├── SequenceGap       a record is not the next one
│   ├── RolledBack        who asks has seen more entries than the log has
│   └── PermitRefused     a claim without a valid permit
├── NotFound              nothing is recorded under that name
│   ├── Archived          it is in the log, and was moved to the log's archive
│   └── BlobMissing       a digest the content store does not hold
│       ├── BlobErased        it was erased on purpose
│       ├── BlobQuarantined   it was found altered and moved aside
│       └── BlobLost          it is needed, and nothing says where it went
├── Corrupt               stored octets are not what was stored
│   └── DigestMismatch    what was sent is not what its digest says; nothing was stored
│   └── Contradicted      the log is not the one that was signed: rolled back, forked, or another
├── TooLarge              over a documented cap
├── Fenced                this writer's epoch is over; a newer one has begun
├── Forbidden             the caller may not do this
└── Unavailable           a backend cannot be reached now; try again later
"""


class TriplaneError(Exception):
    """Base of every error Triplane raises on purpose."""


class InvalidInput(TriplaneError):
    """What the caller sent can never be accepted as it is."""


class InvalidEntry(InvalidInput):
    """An event body breaks the entry format."""


class InvalidDigest(InvalidInput):
    """Not ``sha256:`` followed by 64 lowercase hexadecimal digits."""


class InvalidExpression(InvalidInput):
    """A CEL expression does not compile, fails on its values, or costs too much."""


class InvalidProof(InvalidInput):
    """A Merkle proof is malformed, or proves something else. ``reason`` is a ``triplane.audit.merkle.ProofFault``."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidNote(InvalidInput):
    """A note is malformed, or not signed by whom it must be. ``reason`` is a ``triplane.audit.note.NoteFault``."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Conflict(TriplaneError):
    """The request contradicts what is recorded."""


class IdReused(Conflict):
    """An event with this id and another body is already in the log."""


class SequenceGap(Conflict):
    """A record does not carry the next sequence number."""

    def __init__(self, message: str, *, expected: int) -> None:
        super().__init__(message)
        self.expected = expected


class RolledBack(Conflict):
    """Who asks has seen ``seen`` entries of a log that has only ``size``. A number is told once its entry is
    committed, so nobody is ahead of the log that told it."""

    def __init__(self, origin: str, *, seen: int, size: int) -> None:
        super().__init__(
            f"you have seen {seen} entries, the log {origin} has {size}: it was rolled back, or it is another log; "
            "hold a checkpoint that you kept against it (`triplane verify`, `triplane log verify --earlier`)"
        )


class PermitRefused(Conflict):
    """The launch permit is absent, expired, used, revoked or of another run."""


class NotFound(TriplaneError):
    """Nothing is recorded under that name."""


class Archived(NotFound):
    """The entry is in the log, and its octets are no longer in the database but in the log's archive, which has the
    first ``upto`` entries."""

    def __init__(self, message: str, *, upto: int) -> None:
        super().__init__(message)
        self.upto = upto


class BlobMissing(NotFound):
    """The content store does not hold this digest."""


class BlobErased(BlobMissing):
    """The blob was erased on purpose; the log says when."""


class BlobQuarantined(BlobMissing):
    """What was stored under this digest was found altered and moved aside; the log says when."""


class BlobLost(BlobMissing):
    """The blob is needed, and the log does not say that it was erased or damaged."""


class Corrupt(TriplaneError):
    """Stored octets are not what was stored."""


class Contradicted(Corrupt):
    """The log is not the one whose checkpoints were signed: entries are missing, others stand in their place, or it is
    another log. Going on would build on it."""


class DigestMismatch(Corrupt):
    """What was to be stored under a digest is something else; nothing was stored. ``actual`` is its digest."""

    def __init__(self, message: str, *, actual: str) -> None:
        super().__init__(message)
        self.actual = actual


class TooLarge(TriplaneError):
    """Over a documented cap."""


class Fenced(TriplaneError):
    """A newer writer has begun; this one must stop writing."""


class Forbidden(TriplaneError):
    """The caller may not do this."""


class Unavailable(TriplaneError):
    """A backend cannot be reached now; trying again later is safe."""
