"""The decision of a witness (C2SP tlog-witness, "add-checkpoint"): cosign a checkpoint, or say why not. Pure.

Three steps, because the middle one needs what the witness remembers. ``admit`` reads the request and checks who signed
it; ``judge`` compares it with the latest checkpoint cosigned; ``cosigned`` signs. Whoever serves it runs ``judge`` and
writes ``Accepted.checkpoint`` down in one transaction, and only then calls ``cosigned``: otherwise two requests race
and the later answer rolls the log back, or a crash forgets what was vouched for.

A witness that the log's owner runs detects forks; only independent ones prevent them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from triplane.audit.checkpoint import Checkpoint, add_signatures, check_continues, parse_checkpoint
from triplane.audit.dsse import Signer
from triplane.audit.merkle import EMPTY_ROOT, HASH_OCTETS, MAX_SIZE
from triplane.audit.note import Verified, cosign, make_note, parse_note, parse_signatures, verified_signatures
from triplane.audit.notekey import KeyRing, NoteFault, decode64, encode64, refuse
from triplane.errors import InvalidInput, InvalidNote

MAX_REQUEST: Final = 1024 * 1024
MAX_PROOF_LINES: Final = 63
PLAIN: Final = "text/plain; charset=utf-8"
SIZE: Final = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back. ``reason`` is for the witness's own log and metrics."""

    status: int
    body: bytes
    reason: str
    content_type: str = PLAIN


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request of a known log, signed by it: what it claims is still to be judged."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    signed: tuple[Verified, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """To be written down, then cosigned."""

    checkpoint: Checkpoint
    signed: tuple[Verified, ...]


def admit(body: bytes, logs: Mapping[str, KeyRing]) -> Admitted | Answer:
    """Read a request and check the log's signature. ``logs`` holds the pinned keys by origin.

    Answers 400 to what is malformed, 404 to an unknown origin, 403 to a checkpoint without a signature by a pinned key
    or with one that does not hold.
    """
    try:
        old_size, proof, octets = parse_request(body)
        checkpoint, note = parse_checkpoint(octets)
    except InvalidNote as error:
        return _answer(400, error.reason, str(error))
    keys = logs.get(checkpoint.origin)
    if keys is None:
        return _answer(404, "UnknownOrigin", "no such log is witnessed here; its owner has to have it added")
    try:
        signed = verified_signatures(note.text, note.signatures, keys)
    except InvalidNote as error:
        return _answer(403, error.reason, str(error))
    if not signed:
        return _answer(403, NoteFault.NOT_SIGNED.value, "no signature by a key pinned here for this log")
    if old_size > checkpoint.size:
        return _answer(
            400, "SizesReversed", f"old size {old_size} is more than the checkpoint's {checkpoint.size} entries"
        )
    return Admitted(old_size, proof, checkpoint, signed)


def judge(request: Admitted, latest: Checkpoint | None) -> Accepted | Answer:
    """Compare with the latest checkpoint cosigned for this origin; None when there was none.

    Answers 409 with the size of the latest one when the request starts from another, and 422 to a proof that does not
    hold, a fork, and an empty tree with entries. A 422 to a signed checkpoint may be evidence against the log: keep it.
    """
    checkpoint = request.checkpoint
    known = latest or Checkpoint(checkpoint.origin, 0, EMPTY_ROOT)
    if request.old_size != known.size:
        return Answer(409, b"%d\n" % known.size, "OldSizeMismatch", SIZE)
    try:
        check_continues(known, checkpoint, request.proof)
    except InvalidInput as error:
        reason = getattr(error, "reason", type(error).__name__)
        return _answer(422, reason, f"consistency proof: {error}")
    return Accepted(checkpoint, request.signed)


def cosigned(accepted: Accepted, name: str, signers: Sequence[Signer], timestamp: int) -> Answer:
    """200 with a cosignature by each of the witness's keys, at this time (POSIX seconds).

    To be called once ``accepted.checkpoint`` is durable.
    """
    text = accepted.checkpoint.text
    return Answer(200, b"".join(cosign(text, name, signer, timestamp).line for signer in signers), "Cosigned")


def noted(accepted: Accepted) -> bytes:
    """The checkpoint with the log's verified signatures: what is to be written down."""
    note = parse_note(accepted.checkpoint.text + b"\n" + b"".join(item.line for item in accepted.signed))
    return make_note(note.text, note.signatures)


def published(accepted: Accepted, answer: Answer) -> bytes:
    """The checkpoint to serve at ``<origin hash>/checkpoint`` (C2SP tlog-witness, "Monitor Retrieval Mechanism"):
    the log's verified signatures and the cosignatures given."""
    return add_signatures(noted(accepted), answer.body.splitlines(keepends=True))


def origin_hash(origin: str) -> str:
    """The path element of an origin under the monitoring prefix: lowercase hex SHA-256."""
    return hashlib.sha256(origin.encode()).hexdigest()


def make_request(old_size: int, proof: Iterable[bytes], checkpoint: bytes) -> bytes:
    """The body with which a log asks for cosignatures on its signed checkpoint."""
    lines = "".join(f"{encode64(item)}\n" for item in proof)
    return f"old {old_size}\n{lines}\n".encode() + checkpoint


def conflicting_size(body: bytes) -> int:
    """The size a witness names in a 409. Raises ``InvalidNote`` when it names none."""
    text = body.decode(errors="replace")
    found = _OLD.fullmatch("old " + text.removesuffix("\n")) if text.endswith("\n") else None
    if found is None or int(found[1]) > MAX_SIZE:
        refuse(NoteFault.MALFORMED_NOTE, f"the witness answered a conflict with {text[:80]!r}, which is no size")
    return int(found[1])


def with_cosignatures(checkpoint: bytes, body: bytes, witnesses: KeyRing) -> bytes:
    """The checkpoint with those cosignatures of a witness's answer that hold; others in it are left out.

    Raises ``InvalidNote`` when none is by a known witness, or one that claims to be does not hold.
    """
    text = parse_note(checkpoint).text
    found = verified_signatures(text, parse_signatures(body), witnesses)
    if not found:
        refuse(NoteFault.NOT_SIGNED, "the witness's answer has no cosignature by a known key: check its pinned key")
    return add_signatures(checkpoint, [item.line for item in found])


def parse_request(body: bytes) -> tuple[int, tuple[bytes, ...], bytes]:
    """Old size, proof, and the octets of the note, which begins after the first empty line. Raises ``InvalidNote``."""
    if len(body) > MAX_REQUEST:
        refuse(NoteFault.MALFORMED_NOTE, f"a request of {len(body)} octets: over {MAX_REQUEST} it is not read")
    head, blank, octets = body.partition(b"\n\n")
    old, *lines = head.decode("ascii", errors="replace").split("\n")
    found = _OLD.fullmatch(old)
    if not blank or found is None or int(found[1]) > MAX_SIZE:
        refuse(NoteFault.MALFORMED_NOTE, "a request is `old <size>`, lines of a proof, an empty line and a checkpoint")
    if len(lines) > MAX_PROOF_LINES:
        refuse(NoteFault.MALFORMED_NOTE, f"a consistency proof has at most {MAX_PROOF_LINES} lines, not {len(lines)}")
    return int(found[1]), tuple(_hash(line) for line in lines), octets


def _hash(line: str) -> bytes:
    octets = decode64(line)
    if octets is None or len(octets) != HASH_OCTETS:
        refuse(NoteFault.MALFORMED_NOTE, f"{line[:80]!r} in the proof is no hash: 32 octets in base64")
    return octets


def _answer(status: int, reason: str, message: str) -> Answer:
    return Answer(status, f"{message}\n".encode(errors="replace"), reason)
