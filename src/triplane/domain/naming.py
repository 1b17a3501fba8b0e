"""Deterministic names: the same decision names the same object, so a repeat meets a 409, not a twin."""

import hashlib

MAX_LABEL = 63


def fingerprint(*parts: str) -> str:
    """Eight hex digits over the parts; parts are length-prefixed so that ("ab","c") ≠ ("a","bc")."""
    framed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hashlib.sha256(framed).hexdigest()[:8]


def object_name(*parts: str) -> str:
    """The parts joined by dashes; above 63 characters cut and closed with a fingerprint of the whole."""
    name = "-".join(parts)
    if len(name) <= MAX_LABEL:
        return name
    return f"{name[: MAX_LABEL - 9].rstrip('-.')}-{fingerprint(*parts)}"


def public_id(name: str, uid: str) -> str:
    """``{name}-{8 characters}``: stable for one incarnation of an Agent."""
    return object_name(name, fingerprint(uid))
