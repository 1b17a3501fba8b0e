"""Whose signatures count, and when: the installation's keys as its log tells of them.

A key signs from its ``key.created`` to its ``key.retired``; what it signed in between stays good after. When that was
is said by the log's order alone: an envelope bears no time that a thief of the key could not choose.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from triplane.audit.dsse import key_id_of, load_public_key
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, SYSTEM_STREAM, EventBody, EventSubject, Recorded
from triplane.errors import InvalidInput

ALGORITHM: Final = "Ed25519"
FORMAT: Final = "https://triplane.dev/trust-bundle/v1"
KEY_EVENTS: Final = frozenset({"key.created", "key.retired"})


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key and the part of the log it may sign in: ``created < seq``, and ``seq < retired`` if it is."""

    public_key: bytes
    created: int
    created_at: str
    retired: int | None = None
    retired_at: str | None = None

    @property
    def key_id(self) -> str:
        return key_id_of(self.public_key)

    def covers(self, seq: int) -> bool:
        """Whether what is logged at this place may bear its signature."""
        return self.created < seq and (self.retired is None or seq < self.retired)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The keys of one installation; ``origin`` is its log's."""

    origin: str
    keys: tuple[TrustedKey, ...]

    def wire(self) -> dict[str, Any]:
        """As JSON (docs/reference/attestations.md)."""
        return {"format": FORMAT, "origin": self.origin, "keys": [_key_wire(key) for key in self.keys]}


def key_created(public_key: bytes) -> EventBody:
    """``key.created/<key id>/0``: from here on it may sign."""
    data = {"algorithm": ALGORITHM, "publicKey": base64.b64encode(public_key).decode()}
    return _body("key.created", key_id_of(public_key), data)


def key_retired(key_id: str) -> EventBody:
    """``key.retired/<key id>/0``: from here on it signs nothing more."""
    return _body("key.retired", key_id, {"algorithm": ALGORITHM})


def keys_of(entries: Iterable[Recorded]) -> tuple[TrustedKey, ...]:
    """The keys these entries tell of, oldest first. Raises ``InvalidInput`` for a key that is not what its id says."""
    found: dict[str, TrustedKey] = {}
    for item in sorted(entries, key=lambda item: item.seq):
        entry = item.entry
        key_id, time = entry["subject"]["uid"], entry["time"]
        if entry["type"] == "key.created" and key_id not in found:
            public_key = _decoded(entry["data"].get("publicKey"), f"entry {item.seq}")
            if key_id_of(public_key) != key_id:
                raise InvalidInput(f"entry {item.seq} gives key {key_id} the public key of {key_id_of(public_key)}")
            found[key_id] = TrustedKey(public_key, item.seq, time)
        elif entry["type"] == "key.retired" and key_id in found and found[key_id].retired is None:
            found[key_id] = replace(found[key_id], retired=item.seq, retired_at=time)
    return tuple(found.values())


def read_bundle(document: Any) -> TrustBundle:
    """The inverse of ``TrustBundle.wire``. Raises ``InvalidInput`` naming what is missing or malformed."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise InvalidInput(f"not a trust bundle: its format is not {FORMAT}; `triplane keys export` makes one")
    origin, keys = document.get("origin"), document.get("keys")
    if not isinstance(origin, str) or not origin or not isinstance(keys, list) or not keys:
        raise InvalidInput("the trust bundle names no origin, or no keys")
    return TrustBundle(origin, tuple(_read_key(item) for item in keys))


def _key_wire(key: TrustedKey) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "keyId": key.key_id,
        "algorithm": ALGORITHM,
        "publicKey": base64.b64encode(key.public_key).decode(),
        "created": {"seq": key.created, "time": key.created_at},
    }
    if key.retired is not None:
        wire["retired"] = {"seq": key.retired, "time": key.retired_at}
    return wire


def _read_key(item: Any) -> TrustedKey:
    if not isinstance(item, Mapping) or item.get("algorithm") != ALGORITHM:
        raise InvalidInput(f"a key of the trust bundle is not of algorithm {ALGORITHM}")
    public_key = _decoded(item.get("publicKey"), "the trust bundle")
    key_id = key_id_of(public_key)
    if item.get("keyId") != key_id:
        raise InvalidInput(f"the trust bundle calls a key {item.get('keyId')}, but it is {key_id}")
    created, created_at = _moment(item.get("created"), key_id, "created")
    if item.get("retired") is None:
        return TrustedKey(public_key, created, created_at)
    return TrustedKey(public_key, created, created_at, *_moment(item["retired"], key_id, "retired"))


def _moment(value: Any, key_id: str, what: str) -> tuple[int, str]:
    seq, time = (value.get("seq"), value.get("time")) if isinstance(value, Mapping) else (None, None)
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(time, str):
        raise InvalidInput(f"the trust bundle does not say when key {key_id} was {what}")
    return seq, time


def _decoded(text: Any, where: str) -> bytes:
    try:
        public_key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{where}: a public key is no base64: {error}") from error
    load_public_key(public_key)
    return public_key


def _body(type_: str, key_id: str, data: Mapping[str, Any]) -> EventBody:
    return EventBody(
        id=event_id(type_, key_id, 0),
        type=type_,
        stream=SYSTEM_STREAM,
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="SigningKey", namespace="", name=key_id, uid=key_id),
        data=data,
    )
