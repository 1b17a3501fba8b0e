"""The journal of a session: records in segments, replayable without the process that wrote them (domain.md, C).

A record is ``{id, type, occurredAt, payload}`` with id ``<run>.<segment>.<index>``; a segment is one blob and one log
entry. What comes in is cleaned before it is stored: secrets are redacted, and control characters are spelled out so
that showing a journal in a terminal can neither move the cursor nor forge a line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from triplane.audit.digest import canonical_json
from triplane.domain.redaction import redact_json
from triplane.errors import Corrupt, InvalidInput

MAX_RECORDS: Final = 1000
"""Records in one segment."""
MAX_PAYLOAD: Final = 512 * 1024
"""Octets of one payload as canonical JSON: a 64 KiB line of nothing but control characters still fits."""
MAX_DEPTH: Final = 32
TOLERATED_SECONDS: Final = 60.0
"""How far the clock of a session host may be off before the server's time is shown instead."""

_BIDI = "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad"
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_CONTROL_OR_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_RECORD_ID = re.compile(r"([1-9][0-9]{0,8})\.([1-9][0-9]{0,8})\.([1-9][0-9]{0,8})", re.ASCII)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}


class RecordType(StrEnum):
    """What a journal record is."""

    MESSAGE = "message"
    OBSERVATION = "observation"
    DECISION = "decision"
    STATE = "state"
    ACTIVITY = "activity"
    OWNER_EFFECT = "owner-effect"
    PROJECTION = "projection"


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One record as stored."""

    id: str
    type: RecordType
    occurred_at: str
    payload: Mapping[str, Any]

    def wire(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "id": self.id,
            "type": self.type.value,
            "occurredAt": self.occurred_at,
            "payload": dict(self.payload),
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """The records of one upload: one blob, one log entry."""

    session_uid: str
    run: int
    sequence: int
    records: tuple[JournalRecord, ...]

    @property
    def position(self) -> tuple[int, int]:
        return (self.run, self.sequence)

    def observation_ids(self) -> tuple[str, ...]:
        """``observationId`` of each observation kept in this segment."""
        return tuple(record.payload["observationId"] for record in self.records if _observation_id(record) is not None)

    def octets(self) -> bytes:
        """The blob: canonical JSON, so that a repeated upload has the same digest."""
        return canonical_json(
            {
                "version": 1,
                "journal": self.session_uid,
                "run": self.run,
                "sequence": self.sequence,
                "records": [record.wire() for record in self.records],
            }
        )


def escape_text(text: str, *, lines: bool = False) -> str:
    """Control, bidirectional and invisible characters spelled out (``\\e[31m``, ``\\x00``, ``\\u202e``).

    Line feeds and tabs stay unless ``lines``: a text that is shown on one line must not contain another.
    """
    return (_CONTROL_OR_LINE if lines else _CONTROL).sub(lambda found: _spelled(found[0]), text)


def escape_json(value: Any, *, depth: int = 0) -> Any:
    """The JSON value with every string and key escaped. Raises ``InvalidInput`` beyond 32 levels."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"a payload is nested deeper than {MAX_DEPTH} levels; flatten it")
    match value:
        case str():
            return escape_text(value)
        case Mapping():
            return {
                escape_text(str(key), lines=True): escape_json(item, depth=depth + 1) for key, item in value.items()
            }
        case list() | tuple():
            return [escape_json(item, depth=depth + 1) for item in value]
        case _:
            return value


def clean_json(value: Any) -> Any:
    """What may be stored of a JSON value from outside: escaped, then redacted."""
    return redact_json(escape_json(value))


def number_records(
    session_uid: str,
    run: int,
    sequence: int,
    incoming: Sequence[Mapping[str, Any]],
    seen: frozenset[str] | set[str] = frozenset(),
) -> Segment:
    """The segment to store of an upload: cleaned, deduplicated by ``observationId``, numbered from 1.

    ``seen`` are the observation ids of *earlier* segments of the session: then the same upload always gives the same
    segment. Raises ``InvalidInput`` naming the record and member at fault.
    """
    if len(incoming) > MAX_RECORDS:
        raise InvalidInput(f"{len(incoming)} records in one segment; send at most {MAX_RECORDS}")
    known = set(seen)
    records: list[JournalRecord] = []
    for place, item in enumerate(incoming):
        record = _record(f"{run}.{sequence}.{len(records) + 1}", item, place)
        observation = _observation_id(record)
        if observation is not None:
            if observation in known:
                continue
            known.add(observation)
        records.append(record)
    return Segment(session_uid, run, sequence, tuple(records))


def read_segment(document: Any, *, session_uid: str, run: int, sequence: int) -> Segment:
    """A stored segment; raises ``Corrupt`` when it is not the one of that session and place."""
    place = f"journal segment {run}.{sequence} of session {session_uid}"
    try:
        if (document["version"], document["journal"]) != (1, session_uid):
            raise Corrupt(f"{place}: the blob is a segment of another journal")
        if (document["run"], document["sequence"]) != (run, sequence):
            raise Corrupt(f"{place}: the blob is segment {document['run']}.{document['sequence']}")
        return Segment(
            session_uid,
            run,
            sequence,
            tuple(
                JournalRecord(item["id"], RecordType(item["type"]), item["occurredAt"], item["payload"])
                for item in document["records"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{place}: not a journal segment ({error!r})") from error


@dataclass(frozen=True, slots=True)
class JournalState:
    """What replaying a journal gives: counters and the last of each posture. It restarts no process."""

    session_uid: str
    run: int = 0
    records: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    activity: Mapping[str, Any] = field(default_factory=dict)
    observations: frozenset[str] = frozenset()
    last_id: str | None = None


def replay(session_uid: str, segments: Iterable[Segment]) -> JournalState:
    """Rebuild the state from the segments in order (journal first, not process first).

    Raises ``Corrupt`` for a segment of another session or out of order: a wrong journal must not be continued.
    """
    found = JournalState(session_uid)
    position = (0, 0)
    for segment in segments:
        if segment.session_uid != session_uid:
            raise Corrupt(f"a segment of session {segment.session_uid} stands in the journal of {session_uid}")
        if segment.position <= position:
            raise Corrupt(f"journal of {session_uid}: segment {segment.position} follows {position}")
        position = segment.position
        found = _replayed(found, segment)
    return found


def record_position(record_id: str) -> tuple[int, int, int]:
    """``(run, segment, index)`` of a record id; raises ``InvalidInput`` for anything else."""
    found = _RECORD_ID.fullmatch(record_id)
    if found is None:
        raise InvalidInput(f"{record_id[:60]!r} is not a record id; write <run>.<segment>.<index>")
    return (int(found[1]), int(found[2]), int(found[3]))


def _replayed(found: JournalState, segment: Segment) -> JournalState:
    state, activity, last_id = found.state, found.activity, found.last_id
    for record in segment.records:
        last_id = record.id
        if record.type is RecordType.STATE:
            state = record.payload
        elif record.type is RecordType.ACTIVITY:
            activity = record.payload
    return JournalState(
        found.session_uid,
        segment.run,
        found.records + len(segment.records),
        state,
        activity,
        found.observations | frozenset(segment.observation_ids()),
        last_id,
    )


def _record(record_id: str, item: Any, place: int) -> JournalRecord:
    where = f"records[{place}]"
    if not isinstance(item, Mapping):
        raise InvalidInput(f"{where} is not an object")
    if unknown := sorted(set(item) - {"type", "occurredAt", "payload"}):
        raise InvalidInput(f"{where} has the unknown member {unknown[0]!r}")
    kinds = ", ".join(RecordType)
    if item.get("type") not in {kind.value for kind in RecordType}:
        raise InvalidInput(f"{where}.type is {item.get('type')!r}; it is one of {kinds}")
    payload = item.get("payload")
    if not isinstance(payload, Mapping):
        raise InvalidInput(f"{where}.payload is not an object")
    payload = clean_json(payload)
    if (size := len(canonical_json(payload))) > MAX_PAYLOAD:
        raise InvalidInput(f"{where}.payload has {size} octets; at most {MAX_PAYLOAD}")
    return JournalRecord(record_id, RecordType(item["type"]), _instant(item.get("occurredAt"), where), payload)


def _instant(text: Any, where: str) -> str:
    """RFC 3339 with an offset. It is what the host says: order in the journal rests on numbers, not on it."""
    try:
        if isinstance(text, str) and len(text) <= 40 and datetime.fromisoformat(text).tzinfo is not None:
            return text
    except ValueError:
        pass
    raise InvalidInput(f"{where}.occurredAt is not a time with an offset, such as 2026-01-31T12:00:00Z")


def on_the_servers_clock(record: JournalRecord, earliest: datetime, latest: datetime) -> JournalRecord:
    """The record as readers see it: a time outside of its run (by more than ``TOLERATED_SECONDS``) becomes the nearest
    time inside it by the server's clock. What is stored stays what the host said."""
    said = datetime.fromisoformat(record.occurred_at)
    shown = min(max(said, earliest), latest)
    if abs((shown - said).total_seconds()) <= TOLERATED_SECONDS:
        return record
    return replace(record, occurred_at=shown.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def times_off(records: Iterable[JournalRecord], earliest: datetime, latest: datetime) -> int:
    """How many of the records say a time that ``on_the_servers_clock`` replaces."""
    return sum(on_the_servers_clock(record, earliest, latest) is not record for record in records)


def _observation_id(record: JournalRecord) -> str | None:
    found = record.payload.get("observationId") if record.type is RecordType.OBSERVATION else None
    return found if isinstance(found, str) and found else None


def _spelled(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
