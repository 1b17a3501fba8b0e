"""Digests and canonical JSON: one spelling for every hash Triplane writes down.

A digest is ``sha256:`` and 64 lowercase hexadecimal digits, nothing else: two spellings of one digest would
be two names of one blob, and a path built from an unparsed one leads anywhere.

JSON is hashed in the form of RFC 8785 (JCS). orjson does most of it, but sorts keys by code point where
section 3.2.3 sorts by UTF-16 code unit, and writes numbers its own way where section 3.2.2.3 wants
ECMAScript's. Log entries exclude both by their key and number rules; objects of Kubernetes may hold any key
and any number, so both are done here.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from triplane.errors import InvalidDigest, InvalidInput

ALGORITHM: Final = "sha256"
MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Largest magnitude at which every integer is an IEEE 754 double (RFC 7493, section 2.2)."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


def parse_digest(text: str) -> str:
    """The 64 hexadecimal digits of a digest. Raises ``InvalidDigest`` for any other spelling."""
    found = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidDigest(f"{str(text)[:100]!r} is not a digest; write sha256: and 64 lowercase hexadecimal digits")
    return found.group(1)


def digest_of_hex(digits: str) -> str:
    """``sha256:…`` from hexadecimal digits (as ``hashlib`` gives them). Raises ``InvalidDigest``."""
    digest = f"{ALGORITHM}:{digits}"
    parse_digest(digest)
    return digest


def digest_of_bytes(content: bytes) -> str:
    """``sha256:…`` of these octets."""
    return f"{ALGORITHM}:{hashlib.sha256(content).hexdigest()}"


def digest_of_json(value: Any) -> str:
    """``sha256:…`` of the canonical form of a JSON value. Raises ``InvalidInput`` as ``canonical_json`` does."""
    return digest_of_bytes(canonical_json(value))


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 octets of a JSON value (mappings, lists, tuples, strings, numbers, booleans, None).

    Raises ``InvalidInput`` for what has no such form: NaN and infinities, integers beyond ±(2^53-1), lone
    surrogates, keys that are not strings, other types, nesting too deep.
    """
    try:
        return orjson.dumps(_canonical(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"no canonical JSON (RFC 8785) for this value: {error}; change the value") from error


def _canonical(value: Any) -> Any:
    """The value with keys in UTF-16 order and numbers spelled; orjson keeps the order it is given."""
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            if abs(value) > MAX_SAFE_INTEGER:
                raise InvalidInput(
                    f"no canonical JSON for {value}: beyond ±(2^53-1) readers disagree; write it as a string"
                )
            return int(value)
        case float():
            return orjson.Fragment(_number(value))
        case Mapping():
            return {key: _canonical(value[key]) for key in sorted(value, key=_utf16)}
        case list() | tuple():
            return [_canonical(item) for item in value]
        case _:
            raise InvalidInput(f"no canonical JSON for a {type(value).__name__}; use plain JSON values")


def _utf16(key: Any) -> bytes:
    """Sort key of an object key: its UTF-16 code units, big-endian (RFC 8785, section 3.2.3)."""
    if not isinstance(key, str):
        raise InvalidInput(f"no canonical JSON for key {key!r}: keys are strings")
    return key.encode("utf-16-be")


def _number(value: float) -> str:
    """ECMAScript's Number::toString (ECMA-262, 6.1.6.1.20), on the shortest digits, which ``repr`` also
    finds."""
    if not math.isfinite(value):
        raise InvalidInput(f"no canonical JSON for {value}; JSON has no such number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _place_point(digits, point)


def _place_point(digits: str, point: int) -> str:
    """Spell ``0.digits × 10^point`` as steps 6 to 10 of Number::toString do."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    mantissa = digits[0] if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
