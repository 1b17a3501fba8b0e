"""The entry format: from an event body to the octets that are stored, hashed and proven, and back.

An entry is the RFC 8785 (JCS) form of ``{v, origin, seq, prev, id, stream, type, time, actor, subject, data,
blobs}``. With the limits enforced here (keys ``[a-z][A-Za-z0-9]*``, no floats, integers within ±(2^53−1))
orjson with sorted keys yields exactly that form; a property test holds it against ``rfc8785``. See
docs/reference/log-format.md.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import orjson

from triplane.audit.merkle import leaf_hash
from triplane.audit.model import (
    GENESIS_PREV,
    SYSTEM_ACTOR,
    SYSTEM_STREAM,
    EventBody,
    EventSubject,
    JsonObject,
)
from triplane.errors import InvalidEntry

VERSION = 1
MAX_ENTRY_OCTETS = 65_535
"""tlog-tiles frames an entry with a 16-bit length."""
MAX_DATA_OCTETS = 16 * 1024
MAX_BLOBS = 64
MAX_ID_LENGTH = 200
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16
KEYS = frozenset({"v", "origin", "seq", "prev", "id", "stream", "type", "time", "actor", "subject", "data", "blobs"})
SUBJECT_KEYS = frozenset({"apiVersion", "kind", "namespace", "name", "uid", "generation", "labels"})

_SEQUENCER_OCTETS = 160
"""Room for what the sequencer adds: prev, seq of 16 digits, time, and their keys."""
_UID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_TYPE = r"[a-z][A-Za-z0-9]*\.[a-z][A-Za-z0-9]*"
_KEY = re.compile(r"[a-z][A-Za-z0-9]*")
_ID = re.compile(rf"(?P<type>{_TYPE})/{_UID}/(?:0|[1-9][0-9]{{0,15}})(?:/[A-Za-z0-9._:@+-]+)?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9._-]{0,63}")
_LABEL_KEY = re.compile(r"triplane\.dev/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PATTERNS = {
    "type": re.compile(_TYPE),
    "stream": re.compile(rf"system|graph/{_UID}"),
    "actor": re.compile(_UID),
    "origin": re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}/[A-Za-z0-9]{1,64}"),
    "subject.apiVersion": re.compile(r"[a-z0-9.-]{1,253}(?:/[a-z0-9]{1,63})?"),
    "subject.kind": re.compile(r"[A-Z][A-Za-z0-9]{0,62}"),
    "subject.namespace": re.compile(r"[a-z0-9.-]{0,253}"),
    "subject.name": re.compile(r"[A-Za-z0-9._:-]{0,253}"),
    "subject.uid": re.compile(_UID),
}
_FULLMATCH = {path: pattern.fullmatch for path, pattern in _PATTERNS.items()}


class Context(NamedTuple):
    """What many entries have in common, checked; ``labels`` as JSON."""

    actor: str
    stream: str
    api_version: str
    kind: str
    namespace: str
    type: str
    labels: str


class Prepared(NamedTuple):
    """A checked and encoded body: all that can be done before the sequence number is known."""

    id: str
    body_sha256: bytes
    """SHA-256 of the JCS form of the body: everything but seq, prev and time."""
    head: bytes
    middle: bytes
    tail: bytes
    context: Context
    name: str
    uid: str
    generation: int
    blobs: str
    """As JSON, as it stands in the octets; likewise ``data``."""
    data: bytes

    def seal(self, seq: int, prev: str, time: str) -> bytes:
        """The entry's octets. Keys are in order: … origin, prev, seq, stream, subject, time, type, v."""
        return b'%b,"prev":"%b","seq":%d,%b,"time":"%b",%b' % (
            self.head,
            prev.encode(),
            seq,
            self.middle,
            time.encode(),
            self.tail,
        )

    @property
    def size(self) -> int:
        """Octets of the entry, at most."""
        return len(self.head) + len(self.middle) + len(self.tail) + _SEQUENCER_OCTETS


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry as it will be stored, before it is."""

    octets: bytes
    leaf: bytes
    body_sha256: bytes


def event_id(event_type: str, uid: str, n: int, key: str | None = None) -> str:
    """``type/uid/n[/key]``; raises ``InvalidEntry`` when that is not a valid id."""
    made = f"{event_type}/{uid}/{n}" if key is None else f"{event_type}/{uid}/{n}/{key}"
    _check_id(made, event_type)
    return made


def format_time(moment: datetime) -> str:
    """UTC with six digits and ``Z``; ``moment`` must be aware."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def prepare(origin: str, body: EventBody) -> Prepared:
    """Check a body against every limit of the format and encode it; raises ``InvalidEntry`` naming the path."""
    subject = body.subject
    name, uid, generation = subject.name, subject.uid, subject.generation
    _check_id(body.id, body.type)
    # The patterns admit nothing that JSON escapes, so these texts stand in the octets as they are.
    actor, stream, api_version, kind, namespace, event_type, labels = context = _context(body)
    _check_text("subject.name", name)
    _check_text("subject.uid", uid)
    if type(generation) is not int or not 0 <= generation <= MAX_INTEGER:
        _refuse("subject.generation", f"{generation!r} is not an integer from 0 to 2^53-1")
    blobs = _checked_blobs(body.blobs) if body.blobs else "[]"
    data = _encoded_data(body.data)
    head = b'{"actor":"%b","blobs":%b,"data":%b,"id":"%b","origin":"%b"' % (
        actor.encode(),
        blobs.encode(),
        data,
        body.id.encode(),
        _checked_origin(origin),
    )
    middle = (
        f'"stream":"{stream}","subject":{{"apiVersion":"{api_version}","generation":{generation},'
        f'"kind":"{kind}","labels":{labels},"name":"{name}","namespace":"{namespace}","uid":"{uid}"}}'
    ).encode()
    tail = b'"type":"%b","v":%d}' % (event_type.encode(), VERSION)
    if (size := len(head) + len(middle) + len(tail) + _SEQUENCER_OCTETS) > MAX_ENTRY_OCTETS:
        _refuse("", f"the entry would take {size} octets, over {MAX_ENTRY_OCTETS}: put payloads into blobs")
    body_sha256 = sha256(b"%b,%b,%b" % (head, middle, tail)).digest()
    return Prepared(body.id, body_sha256, head, middle, tail, context, name, uid, generation, blobs, data)


def encode_data(data: JsonObject) -> str:
    """The JCS form of ``data``; raises ``InvalidEntry`` naming the path of what the format refuses."""
    return _encoded_data(data).decode()


def _encoded_data(data: JsonObject) -> bytes:
    if not isinstance(data, Mapping):
        _refuse("data", "must be an object")
    if not _plainly_right(data, 1):
        _check_items(data, "data", 1)
    try:
        encoded = orjson.dumps(data, default=_plain, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise InvalidEntry(f"data: {error}") from error
    if len(encoded) > MAX_DATA_OCTETS:
        _refuse("data", f"takes {len(encoded)} octets as JSON, over {MAX_DATA_OCTETS}: put payloads into blobs")
    return encoded


@dataclass(frozen=True, slots=True)
class Opened:
    """An entry read back from its octets, with the hash of its body."""

    entry: dict[str, Any]
    body_sha256: bytes


def open_entry(octets: bytes) -> Opened:
    """Read an entry; raises ``InvalidEntry`` unless the octets are exactly the canonical form of a valid one.

    What was parsed is encoded anew and must give the same octets: that also refuses duplicate keys, ``-0``, white
    space, needless escapes and every other second spelling.
    """
    if len(octets) > MAX_ENTRY_OCTETS:
        _refuse("", f"{len(octets)} octets, over {MAX_ENTRY_OCTETS}")
    try:
        entry = orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        raise InvalidEntry(f"not JSON: {error}") from error
    if type(entry) is not dict or entry.keys() != KEYS:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        _refuse("", f"must have exactly the keys {', '.join(sorted(KEYS))}, not {found}")
    _check_sequencing(entry)
    prepared = prepare(entry["origin"], body_of(entry))
    if prepared.seal(entry["seq"], entry["prev"], entry["time"]) != octets:
        _refuse_duplicates(octets)
        _refuse("", "the octets are not in canonical form (RFC 8785)")
    return Opened(entry, prepared.body_sha256)


def parse(octets: bytes) -> dict[str, Any]:
    """The entry these octets are; raises ``InvalidEntry`` as ``open_entry`` does."""
    return open_entry(octets).entry


def body_of(entry: JsonObject) -> EventBody:
    """The body a parsed entry was made of; raises ``InvalidEntry`` when its structure is not that of an
    entry."""
    subject = entry["subject"]
    if type(subject) is not dict or subject.keys() != SUBJECT_KEYS:
        _refuse("subject", f"must have exactly the keys {', '.join(sorted(SUBJECT_KEYS))}")
    try:
        labels = tuple((key, value) for key, value in subject["labels"])
    except (TypeError, ValueError):
        _refuse("subject.labels", "must be an array of [key, value]")
    if type(entry["blobs"]) is not list:
        _refuse("blobs", "must be an array")
    return EventBody(
        id=entry["id"],
        type=entry["type"],
        stream=entry["stream"],
        actor=entry["actor"],
        subject=EventSubject(
            kind=subject["kind"],
            namespace=subject["namespace"],
            name=subject["name"],
            uid=subject["uid"],
            generation=subject["generation"],
            api_version=subject["apiVersion"],
            labels=labels,
        ),
        data=entry["data"],
        blobs=tuple(entry["blobs"]),
    )


def seal_all(prepared: Iterable[Prepared], seq: int, prev: str, time: str) -> list[Sealed]:
    """Chain bodies from ``seq`` on, all at one ``time``."""
    sealed = []
    for number, body in enumerate(prepared, seq):
        octets = body.seal(number, prev, time)
        leaf = leaf_hash(octets)
        prev = leaf.hex()
        sealed.append(Sealed(octets, leaf, body.body_sha256))
    return sealed


def chain_leaves(prepared: Iterable[Prepared], seq: int, prev: bytes, time: str) -> list[bytes]:
    """The leaf hashes that ``seal_all`` would give, from the leaf hash before; for whoever does not need the octets."""
    leaves = []
    before, moment = prev.hex().encode(), time.encode()
    for number, body in enumerate(prepared, seq):
        leaf = sha256(  # 0x00 and the entry: RFC 6962, section 2.1
            b'\0%b,"prev":"%b","seq":%d,%b,"time":"%b",%b' % (body.head, before, number, body.middle, moment, body.tail)
        )
        leaves.append(leaf.digest())
        before = leaf.hexdigest().encode()
    return leaves


def first_bodies(host: str, install_id: str) -> tuple[EventBody, EventBody]:
    """What every log begins with: its origin, and the principal ``system``."""
    created = EventBody(
        id=event_id("origin.created", install_id, 0),
        type="origin.created",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Origin", namespace="", name=host, uid=install_id),
        data={"host": host, "installId": install_id},
    )
    system = EventBody(
        id=event_id("principal.created", SYSTEM_ACTOR, 0),
        type="principal.created",
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="Principal", namespace="", name=SYSTEM_ACTOR, uid=SYSTEM_ACTOR),
        data={"role": "system"},
    )
    return created, system


def first_entries(host: str, install_id: str, now: datetime) -> list[Sealed]:
    """Entries 0 and 1 of a new log."""
    bodies = [prepare(f"{host}/{install_id}", body) for body in first_bodies(host, install_id)]
    return seal_all(bodies, 0, GENESIS_PREV, format_time(now))


def _refuse(path: str, message: str) -> NoReturn:
    raise InvalidEntry(f"{path}: {message}" if path else message)


def _check_id(value: object, event_type: object) -> None:
    if not isinstance(event_type, str) or _FULLMATCH["type"](event_type) is None:
        _refuse_text("type", event_type)
    match = _ID.fullmatch(value) if isinstance(value, str) and len(value) <= MAX_ID_LENGTH else None
    if match is None or match["type"] != event_type:
        _refuse("id", f"{value!r} is not {event_type}/uid/n[/key] in at most {MAX_ID_LENGTH} ASCII characters")


def _refuse_text(path: str, value: object) -> NoReturn:
    _refuse(path, f"{value!r} does not match {_PATTERNS[path].pattern}")


@lru_cache(maxsize=16)
def _checked_origin(origin: str) -> bytes:
    _check_text("origin", origin)
    return origin.encode()


def _context(body: EventBody) -> Context:
    subject = body.subject
    values = body.actor, body.stream, subject.api_version, subject.kind, subject.namespace, body.type, subject.labels
    try:
        return _checked_context(*values)
    except TypeError:  # something unhashable stands where a text must; without the cache it is refused by its path
        return _checked_context.__wrapped__(*values)


@lru_cache(maxsize=1024)  # the objects of one Task have the same few
def _checked_context(
    actor: str,
    stream: str,
    api_version: str,
    kind: str,
    namespace: str,
    event_type: str,
    labels: tuple[tuple[str, str], ...],
) -> Context:
    for path, text in (
        ("stream", stream),
        ("actor", actor),
        ("subject.apiVersion", api_version),
        ("subject.kind", kind),
        ("subject.namespace", namespace),
    ):
        _check_text(path, text)
    checked = checked_labels.__wrapped__(labels) if labels else "[]"
    return Context(actor, stream, api_version, kind, namespace, event_type, checked)


def _check_text(path: str, text: object) -> None:
    if not isinstance(text, str) or _FULLMATCH[path](text) is None:
        _refuse_text(path, text)


@lru_cache(maxsize=1024)  # the objects of one workstream carry the same few
def checked_labels(labels: tuple[tuple[str, str], ...]) -> str:
    for key, value in labels:
        if not isinstance(key, str) or _LABEL_KEY.fullmatch(key) is None:
            _refuse("subject.labels", f"key {key!r} is not triplane.dev/…: other labels are not for the log")
        if not isinstance(value, str) or _LABEL_VALUE.fullmatch(value) is None:
            _refuse("subject.labels", f"{key} has the value {value!r}, which is not a label value")
    if any(earlier[0] >= later[0] for earlier, later in pairwise(labels)):
        _refuse("subject.labels", "must be sorted by key, each key once")
    return "[" + ",".join([f'["{key}","{value}"]' for key, value in labels]) + "]"


def _checked_blobs(blobs: tuple[str, ...]) -> str:
    if len(blobs) > MAX_BLOBS:
        _refuse("blobs", f"{len(blobs)} digests, over {MAX_BLOBS}")
    for number, digest in enumerate(blobs):
        if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
            _refuse(f"blobs[{number}]", f"{digest!r} is not sha256: and 64 lowercase hex digits")
    return '["' + '","'.join(blobs) + '"]'


def _plainly_right(value: object, depth: int) -> bool:
    """Nearly everything is: then no path needs to be known. False only means that it takes a closer look."""
    if type(value) is dict:
        for key in value:
            if type(key) is not str or not (key.isascii() and key.isalnum() and "a" <= key[0] <= "z"):
                return False
        items: Iterable[object] = value.values()
    elif type(value) is list:
        items = value
    else:
        return False
    for item in items:
        kind = type(item)
        if kind is str:
            if not item.isascii() or "\0" in item:  # type: ignore[attr-defined, operator]
                return False
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:  # type: ignore[operator]
                return False
        elif item is not None and kind is not bool and (depth >= MAX_DEPTH or not _plainly_right(item, depth + 1)):
            return False
    return True


def _check_value(value: object, path: str, depth: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _check_string(value, path)
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            _refuse(path, f"{value} is outside ±(2^53-1): use a string")
    elif isinstance(value, Mapping | list | tuple):
        if depth > MAX_DEPTH:
            _refuse(path, f"nested deeper than {MAX_DEPTH}")
        _check_items(value, path, depth)
    elif isinstance(value, float):
        _refuse(path, f"{value!r} is a float: use an integer of minor units, or a string")
    else:
        _refuse(path, f"{type(value).__name__} is not JSON")


def _check_items(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], path: str, depth: int) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or _KEY.fullmatch(key) is None:
                _refuse(path, f"key {key!r} does not match {_KEY.pattern}")
            _check_value(item, f"{path}.{key}", depth + 1)
    else:
        for number, item in enumerate(value):
            _check_value(item, f"{path}[{number}]", depth + 1)


def _check_string(value: str, path: str) -> None:
    if "\0" in value:
        _refuse(path, "contains NUL")
    if not value.isascii() and any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        _refuse(path, "contains a lone surrogate")


def _check_sequencing(entry: JsonObject) -> None:
    if entry["v"] != VERSION or type(entry["v"]) is not int:
        _refuse("v", f"{entry['v']!r} is not {VERSION}: this verifier is too old, or the entry is not one")
    if type(entry["seq"]) is not int or not 0 <= entry["seq"] <= MAX_INTEGER:
        _refuse("seq", f"{entry['seq']!r} is not a sequence number")
    if not isinstance(entry["prev"], str) or _HEX.fullmatch(entry["prev"]) is None:
        _refuse("prev", f"{entry['prev']!r} is not 64 lowercase hex digits")
    if not isinstance(entry["time"], str) or _TIME.fullmatch(entry["time"]) is None:
        _refuse("time", f"{entry['time']!r} is not a time with six digits and Z")


def _refuse_duplicates(octets: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                _refuse("", f"the key {key!r} occurs twice")
            seen[key] = value
        return seen

    json.loads(octets, object_pairs_hook=once)


def _plain(value: object) -> object:
    """orjson's way out for mappings and sequences that are not dict and list."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
