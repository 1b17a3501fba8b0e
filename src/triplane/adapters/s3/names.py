"""The keys of a content store in a bucket."""

import re
from typing import Final

BLOBS: Final = "blobs/sha256"
QUARANTINE: Final = "quarantine"
TEMPORARY: Final = "tmp"
HOLDS: Final = "holds"
LEASES: Final = "lease"
OWNER: Final = "owner"

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{64})/[0-9a-f]+", re.ASCII)
_QUARANTINED = re.compile(r"quarantine/([0-9a-f]{64})/[^/]+", re.ASCII)
_HOLD = re.compile(r"holds/([0-9a-f]{64})/([a-z0-9-]+)", re.ASCII)


def folder_of(digits: str) -> str:
    """Where the objects of a blob are, from the parsed digest alone."""
    return f"{BLOBS}/{digits[:2]}/{digits[2:4]}/{digits}"


def digits_of(key: str) -> str | None:
    """Whose object this is; None when it is in nobody's place."""
    found = _BLOB.fullmatch(key)
    if found is None or found.group(3)[:4] != found.group(1) + found.group(2):
        return None
    return found.group(3)


def quarantined_digits_of(key: str) -> str | None:
    """In whose place this was found."""
    found = _QUARANTINED.fullmatch(key)
    return None if found is None else found.group(1)


def hold_of(key: str) -> tuple[str, str] | None:
    """Digits and holder."""
    found = _HOLD.fullmatch(key)
    return None if found is None else (found.group(1), found.group(2))
