"""``log.new_entry[]`` in Postgres' binary form, as ``log_append`` takes it.

Written by hand: psycopg's arrays cost several times what the entries themselves do. An array is (dimensions, flags,
element type, length, lower bound) and its elements, each after its length (``array_recv``); a composite is the number
of its fields and each of them after its type and its length (``record_recv``).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import pack

from triplane.audit.entry import Context, Prepared

_TEXT = pack("!i", 25)
_BYTEA_OID = 17
_FIELDS = pack("!i", 14)
_INT8 = pack("!ii", 20, 8)
_HASH = pack("!ii", _BYTEA_OID, 32)
_HASH_LENGTH = pack("!i", 32)


def encode_entries(entries: Sequence[Prepared], oid: int) -> bytes:
    """An array of ``log.new_entry``, whose type has this oid."""
    return pack("!iiiii", 1, 0, oid, len(entries), 1) + b"".join(map(_element, entries))


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """A ``bytea[]`` of hashes of 32 octets."""
    return pack("!iiiii", 1, 0, _BYTEA_OID, len(hashes), 1) + _joined(hashes)


def _joined(hashes: Iterable[bytes]) -> bytes:
    return b"".join([_HASH_LENGTH + item for item in hashes])


@lru_cache(maxsize=1024)
def _context(context: Context) -> bytes:
    return _FIELDS + b"".join(_text(value) for value in context)


def _text(value: str) -> bytes:
    octets = value.encode()
    return b"%b%b%b" % (_TEXT, len(octets).to_bytes(4), octets)


def _element(entry: Prepared) -> bytes:
    id_, body_sha256, _, _, _, context, name, uid, generation, blobs, data = entry
    # Joined, not formatted: half as long. data is octets already.
    event, named, subject, digests = id_.encode(), name.encode(), uid.encode(), blobs.encode()
    record = b"".join(
        (
            _context(context),
            *(_TEXT, len(event).to_bytes(4), event, _TEXT, len(named).to_bytes(4), named),
            *(_TEXT, len(subject).to_bytes(4), subject, _INT8, generation.to_bytes(8)),
            *(_TEXT, len(digests).to_bytes(4), digests, _TEXT, len(data).to_bytes(4), data, _HASH, body_sha256),
        )
    )
    return len(record).to_bytes(4) + record
