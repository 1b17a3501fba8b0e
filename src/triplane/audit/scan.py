"""Reading an entry back at the speed of a disk: ``open_entry`` in one match, for the entries that nearly all are.

A scan accepts only what ``open_entry`` accepts and yields the same (a property test holds it to that). It may decline
a valid entry: whoever gets None asks ``open_entry``, which also knows the reason for a refusal.

One expression matches the whole entry, whose keys have one order. What it calls ``data`` and ``labels`` is then shown
to be the canonical form of a JSON object and of well-formed labels by itself; everything around them is text without
quotes or braces. So the octets are the canonical form of an entry, and its fields are those of the match.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import orjson

from triplane.audit.entry import MAX_DATA_OCTETS, MAX_ENTRY_OCTETS, MAX_ID_LENGTH, checked_labels, encode_data
from triplane.errors import InvalidEntry

_UID: Final = rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_TYPE: Final = rb"[a-z][A-Za-z0-9]*\.[a-z][A-Za-z0-9]*"
_NUMBER: Final = rb"(?:0|[1-9][0-9]{0,14})"
_DIGEST: Final = rb'"sha256:[0-9a-f]{64}"'
_STREAM: Final = rb"system|graph/" + _UID
_ID: Final = _TYPE + rb"/" + _UID + rb"/(?:0|[1-9][0-9]{0,15})(?:/[A-Za-z0-9._:@+-]+)?"
_TIME: Final = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_PLAIN: Final = rb'(?:"[^"\\\x00-\x1f\x80-\xff]*"|0|-?[1-9][0-9]{0,14}|true|false|null)'
_KEY: Final = rb'"[a-z][A-Za-z0-9]*":'


def _listed(item: bytes) -> bytes:
    """None or several, with commas between. A comma that might be left out would leave open where a number ends: an
    expression that can split one in many ways tries them all, and one entry would hold up every verifier."""
    return rb"(?:" + item + rb"(?:," + item + rb")*)?"


_NESTED: Final = rb"(?:" + _PLAIN + rb"|\[" + _listed(_PLAIN) + rb"\]|\{" + _listed(_KEY + _PLAIN) + rb"\})"
_FLAT_DATA: Final = re.compile(rb"\{" + _listed(_KEY + _NESTED) + rb"\}")
"""Values that need no look at each: no escapes, nothing beyond ASCII, no floats, no integers near 2^53. Whether keys
are in order and occur once is for the comparison with the canonical form."""
_LARGEST: Final = MAX_ENTRY_OCTETS - 1024
_LABELS_KEPT: Final = 4096


Scanned = tuple[bytes, bytes, bytes, tuple[bytes, ...], bytes]
"""What a verification needs of an entry: prev, seq, time, the values of ``chain.PROJECTIONS``, and the body's SHA-256.
Texts are octets: ASCII, as the format has them."""


def scanner(origin: str) -> Callable[[bytes], Scanned | None]:
    """A scan of entries of this origin."""
    match = _pattern(origin).fullmatch
    flat = _FLAT_DATA.fullmatch
    loads, dumps, sort = orjson.loads, orjson.dumps, orjson.OPT_SORT_KEYS
    good_labels: set[bytes] = {b"[]"}

    def scan(octets: bytes) -> Scanned | None:
        found = match(octets)
        if found is None or len(octets) > _LARGEST:
            return None
        actor, data, event_id, prev, seq, middle, stream, kind, labels, name, namespace, uid, time, tail, type_ = (
            found.groups()
        )
        if not event_id.startswith(type_ + b"/") or len(event_id) > MAX_ID_LENGTH or len(data) > MAX_DATA_OCTETS:
            return None
        if flat(data) is None:
            if not _is_canonical_data(data):
                return None
        else:
            try:
                if dumps(loads(data), option=sort) != data:
                    return None
            except orjson.JSONDecodeError:
                return None
        if labels not in good_labels:
            if not _are_labels(labels):
                return None
            if len(good_labels) < _LABELS_KEPT:
                good_labels.add(labels)
        head = octets[: found.start(4) - 9]  # up to ,"prev":"
        return (
            prev,
            seq,
            time,
            (event_id, stream, type_, time, actor, kind, namespace, name, uid),
            sha256(b"%b,%b,%b" % (head, middle, tail)).digest(),
        )

    return scan


def _pattern(origin: str) -> re.Pattern[bytes]:
    return re.compile(
        rb'\{"actor":"(' + _UID + rb')",'
        rb'"blobs":\[(?:' + _DIGEST + rb"(?:," + _DIGEST + rb"){0,63})?\],"
        rb'"data":(\{.*\}),'
        rb'"id":"(' + _ID + rb')",'
        rb'"origin":"' + re.escape(origin.encode()) + rb'",'
        rb'"prev":"([0-9a-f]{64})",'
        rb'"seq":(' + _NUMBER + rb"),"
        rb'("stream":"(' + _STREAM + rb')",'
        rb'"subject":\{"apiVersion":"[a-z0-9.-]{1,253}(?:/[a-z0-9]{1,63})?","generation":' + _NUMBER + rb","
        rb'"kind":"([A-Z][A-Za-z0-9]{0,62})","labels":(\[[^{}]*\]),"name":"([A-Za-z0-9._:-]{0,253})",'
        rb'"namespace":"([a-z0-9.-]{0,253})","uid":"(' + _UID + rb')"\}),'
        rb'"time":"(' + _TIME + rb')",'
        rb'("type":"(' + _TYPE + rb')","v":1\})',
        re.DOTALL,
    )


def _is_canonical_data(data: bytes) -> bool:
    try:
        return encode_data(orjson.loads(data)).encode() == data
    except (orjson.JSONDecodeError, InvalidEntry):
        return False


def _are_labels(labels: bytes) -> bool:
    try:
        pairs = tuple((key, value) for key, value in orjson.loads(labels))
        return checked_labels(pairs).encode() == labels
    except (orjson.JSONDecodeError, InvalidEntry, TypeError, ValueError):
        return False
