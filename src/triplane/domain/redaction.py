"""Redaction: secrets are replaced before a text is stored, because the log and its blobs are kept.

Two families. *Marked* secrets carry their own shape (a PEM key, a JSON Web Token, one of our run tokens, a cloud
key): they are found anywhere with next to no false alarms. *Named* secrets are values beside a telling name
(``password=…``, ``"api_key": "…"``, ``Authorization: Bearer …``). Every pattern is linear in the length of the text.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

_MARKED: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private-key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]|-(?!----END ))*(?:-----END [A-Z0-9 ]{0,64}-----)?"
        ),
    ),
    ("run-token", re.compile(r"\btrp1\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}")),
    ("jwt", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")),
    ("aws-key", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b")),
    ("github-token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})")),
    ("api-key", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")),
)
_NAME = (
    r"(?:pass(?:word|wd|phrase)|secret(?:[_-]?(?:access[_-]?)?key)?|client[_-]?secret|api[_-]?key|"
    r"access[_-]?key(?:[_-]?secret)?|auth[_-]?token|access[_-]?token|refresh[_-]?token|private[_-]?key|"
    r"bearer[_-]?token|credentials?)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)[ \t]{1,8}(?=[A-Za-z0-9+/_.~-]*[0-9+/_.~=-])[A-Za-z0-9+/_.~-]{12,}=*")
_NAMED = re.compile(
    rf"(?i)((?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,32}}[_-]){{0,3}}{_NAME}\b[\"']?[ \t]{{0,8}}[:=][ \t]{{0,8}})"
    r"(?!\[redacted)(\"[^\"\n]+\"|'[^'\n]+'|[^\s\"',;&}\]]+)"
)
_TOKEN = re.compile(r"(?i)(\btoken\b[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?)(?=[A-Za-z_.-]*[0-9])[A-Za-z0-9_.-]{16,}")
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,256}:)[^\s/@]{1,256}(?=@)")
_SECRET_MEMBER = re.compile(rf"(?i)^(?:[A-Za-z0-9]+[_-])*{_NAME}$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def marked_secrets(text: str) -> tuple[str, ...]:
    """The kinds of marked secrets in the text, in a fixed order; empty if there are none."""
    return tuple(kind for kind, pattern in _MARKED if pattern.search(text))


def redact_text(text: str) -> str:
    """The text with each secret replaced by ``[redacted:<kind>]``. Doing it twice changes nothing more."""
    for kind, pattern in _MARKED:
        text = pattern.sub(f"[redacted:{kind}]", text)
    text = _BEARER.sub(lambda found: f"{found[1]} [redacted:bearer]", text)
    text = _URL_PASSWORD.sub(r"\1[redacted:password]", text)
    text = _TOKEN.sub(r"\1[redacted:token]", text)
    return _NAMED.sub(lambda found: f"{found[1]}[redacted:value]", text)


def redact_json(value: Any) -> Any:
    """The JSON value with secrets redacted in every string, key and telling-named member, at any depth."""
    match value:
        case str():
            return redact_text(value)
        case Mapping():
            return {redact_text(str(key)): _member(str(key), item) for key, item in value.items()}
        case list() | tuple():
            return [redact_json(item) for item in value]
        case _:
            return value


def _member(key: str, value: Any) -> Any:
    """A string under a telling name (``password``, ``apiKey``) goes whole; an ``{name, value}`` pair counts too."""
    if isinstance(value, str) and value and _telling(key):
        return value if value.startswith("[redacted:") else "[redacted:value]"
    if isinstance(value, list):
        return [_pair(item) for item in value]
    return redact_json(value)


def _pair(item: Any) -> Any:
    """Environment variables are lists of ``{name, value}``: the name tells."""
    cleaned = redact_json(item)
    if isinstance(item, Mapping) and isinstance(item.get("name"), str) and isinstance(item.get("value"), str):
        cleaned["value"] = _member(item["name"], item["value"])
    return cleaned


def _telling(key: str) -> bool:
    return _SECRET_MEMBER.match(_CAMEL.sub("_", key)) is not None


MIN_KNOWN: Final = 6
"""Characters from which on a spelling of a known secret is looked for: shorter ones stand in innocent text."""
MIN_LINE: Final = 16
"""Characters from which on a single line of a secret of several lines is looked for by itself."""
_FEW: Final = 64
"""Spellings up to which one pattern finds them fastest; its cost is their number times the length of the text."""


class KnownSecrets:
    """Values that must stand in nothing that is kept, found in the spellings they commonly take.

    Each value as it is, line by line, as JSON, URL-encoded, in hexadecimal, and in base64 (RFC 4648, both alphabets) at
    each of the three places it can have within a longer text, such as ``user:value``. What was taken apart, compressed
    or encrypted is not found.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _spellings(value) if len(form) >= MIN_KNOWN}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        few = 0 < len(ordered) <= _FEW
        self._text = re.compile("|".join(map(re.escape, ordered))) if few else None
        self._many: dict[str, list[str]] = {}
        """Otherwise the spellings by how they begin, the longest first."""
        for form in () if few else ordered:
            self._many.setdefault(form[:MIN_KNOWN], []).append(form)
        self._octets = tuple(form.encode("utf-8", "replace") for form in ordered)
        self.longest = max(map(len, self._octets), default=0)
        """Octets of the longest spelling: what a reader in pieces must keep of the piece before."""

    def __bool__(self) -> bool:
        return bool(self._octets)

    def redacted(self, text: str) -> str:
        """The text with each of them replaced by ``[redacted]``."""
        if self._text is not None:
            return self._text.sub("[redacted]", text)
        return self._walked(text) if self._many else text

    def redacted_json(self, value: Any) -> Any:
        """The JSON value with each of them replaced in every string and key, at any depth."""
        if not self:
            return value
        match value:
            case str():
                return self.redacted(value)
            case Mapping():
                return {self.redacted(str(key)): self.redacted_json(item) for key, item in value.items()}
            case list() | tuple():
                return [self.redacted_json(item) for item in value]
            case _:
                return value

    def _walked(self, text: str) -> str:
        """The same for many spellings, in a time that does not grow with their number: a key file has hundreds."""
        parts: list[str] = []
        kept = at = 0
        while at <= len(text) - MIN_KNOWN:
            begun = self._many.get(text[at : at + MIN_KNOWN])
            found = next((form for form in begun if text.startswith(form, at)), None) if begun else None
            if found is None:
                at += 1
                continue
            parts += (text[kept:at], "[redacted]")
            kept = at = at + len(found)
        return "".join((*parts, text[kept:]))

    def within(self, octets: bytes) -> bool:
        """Whether any of them stands in these octets."""
        return any(form in octets for form in self._octets)


def _spellings(value: str) -> Iterable[str]:
    lines = [line.strip() for line in value.splitlines()]
    for text in (value, value.strip(), *(line for line in lines if len(line) >= MIN_LINE)):
        octets = text.encode("utf-8", "replace")
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
        yield from (quote(text), quote(text, safe=""), quote_plus(text), octets.hex(), octets.hex().upper())
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset in range(3):
                # The characters that depend on this text alone, whatever stands before and after it.
                encoded = encode(b"\0" * offset + octets).decode().rstrip("=")
                yield encoded[(0, 2, 3)[offset] : len(encoded) - (1 if (offset + len(octets)) % 3 else 0)]
