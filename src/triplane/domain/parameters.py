"""Parameters: what a Workflow lets a Node set, and a Capability a Task: checked by type, and put where ``[[name]]``
stands.

Values are text whatever their type. A value is put in once: what looks like a parameter inside a value stays as it is.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import urlsplit

import orjson

from triplane.api.capability import LabelType
from triplane.api.text import DIGEST

_NAMED = re.compile(r"\[\[([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\]\]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_DIGEST = re.compile(DIGEST, re.ASCII)
_INT64: Final = 2**63
"""CEL's ``int`` has 64 bits."""
SHOWN: Final = 40
"""Characters of a refused value that a message shows."""


class Declared(Protocol):
    """A parameter as it is declared: ``api.workflow.Parameter`` or ``api.capability.Label``."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> StrEnum: ...

    @property
    def default(self) -> str | None: ...

    @property
    def options(self) -> list[str] | None: ...


@dataclass(frozen=True, slots=True)
class Settled:
    """The value of every parameter, and what is wrong with them as ``(reason, message)``."""

    values: Mapping[str, str]
    problems: tuple[tuple[str, str], ...]


def named_in(text: str) -> tuple[str, ...]:
    """The parameters that ``[[name]]`` in the text stands for, each once, in order."""
    return tuple(dict.fromkeys(_NAMED.findall(text)))


def put_into(text: str, values: Mapping[str, str]) -> str:
    """The text with each ``[[name]]`` replaced by its value; one without a value stays as it is."""
    return _NAMED.sub(lambda found: values.get(found[1], found[0]), text)


def declaration_problems(declared: Sequence[Declared]) -> tuple[tuple[str, str], ...]:
    """What is wrong with the parameters as they are declared: ``(reason, message)`` each."""
    found = []
    for item in declared:
        if (item.type == LabelType.SELECT) != bool(item.options):
            message = f"parameter {item.name}: options are what a Select may be; a Select has some, no other type has"
            found.append(("ParameterInvalid", message))
        elif item.default is not None and (wrong := mismatch(item, item.default)):
            found.append(("ParameterInvalid", f"the default of parameter {item.name} {wrong}"))
    return tuple(found)


def settle(
    declared: Sequence[Declared],
    given: Mapping[str, str],
    *,
    owner: str = "the Workflow",
    field: str = "spec.parameters",
) -> Settled:
    """The value of each declared parameter: what is given in ``field``, else the default of its ``owner``."""
    wrong = [
        ("ParameterUnknown", f"{owner} has no parameter {name}; {known([item.name for item in declared])}")
        for name in sorted(given.keys() - {item.name for item in declared})
    ]
    values = {}
    for item in declared:
        value = given.get(item.name, item.default)
        if value is None:
            wrong.append(("ParameterMissing", f"parameter {item.name} has no default: set it in {field}"))
            continue
        if problem := mismatch(item, value):
            wrong.append(("ParameterInvalid", f"parameter {item.name} {problem}"))
        values[item.name] = value
    return Settled(values, tuple(wrong))


def known(names: Collection[str]) -> str:
    """What there is, for a message about what there is not."""
    return f"it has {', '.join(sorted(names))}" if names else "it has none"


def mismatch(item: Declared, value: str) -> str | None:
    """How the value breaks the parameter's type; None when it does not."""
    shown = repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
    if item.type == LabelType.SELECT:
        options = item.options or []
        return None if value in options else f"is {shown}, none of {', '.join(options)}"
    # The Text of a Workflow may have many lines; that of a Capability is one, for it has Textarea as well.
    if isinstance(item.type, LabelType) and item.type is LabelType.TEXT and ("\n" in value or "\r" in value):
        return f"is {shown}, not one line; declare it as Textarea"
    check = _CHECKS.get(item.type.value)
    return None if check is None or check[0](value) else f"is {shown}, {check[1]}"


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and -_INT64 <= int(text) < _INT64


def _is_finite(form: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: form.fullmatch(text) is not None and math.isfinite(float(text))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_url(text: str) -> bool:
    """RFC 3986, absolute, of the web; without user information, which would be a password in plain sight."""
    if re.search(r"[^!-~]", text):
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and port != 0
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None and _parses(date.fromisoformat, text)


def _is_datetime(text: str) -> bool:
    """A leap second (``23:59:60``) is refused: no clock of ours could say it back."""
    return _DATETIME.fullmatch(text) is not None and _parses(datetime.fromisoformat, text.upper())


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


_CHECKS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    LabelType.INTEGER: (_is_integer, "not a whole number of 64 bits"),
    LabelType.DECIMAL: (_is_finite(_DECIMAL), "not a decimal number"),
    LabelType.FLOAT: (_is_finite(_DECIMAL), "not a number that a double can hold"),
    LabelType.NUMBER: (_is_finite(_NUMBER), "not a number as JSON has them (RFC 8259, section 6)"),
    LabelType.BOOLEAN: (lambda text: text in ("true", "false"), "neither true nor false"),
    LabelType.JSON: (_is_json, "not a JSON document (RFC 8259)"),
    LabelType.URL: (_is_url, "not an http or https URL with a host and without a password"),
    LabelType.DATE: (_is_date, "not a date like 2026-03-01 (RFC 3339, full-date)"),
    LabelType.DATETIME: (_is_datetime, "not a time with its offset like 2026-03-01T12:00:00Z (RFC 3339)"),
    LabelType.FILE: (lambda text: _DIGEST.fullmatch(text) is not None, "not the digest of a blob (sha256:…)"),
}
"""Type → its check, and what is said of a value that fails it. Text and Textarea take any text."""
