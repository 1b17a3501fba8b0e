"""Parameters: what a Workflow lets a Node set, checked by type, and put where ``[[name]]`` stands.

Values are text whatever their type. A value is put in once: what looks like a parameter inside a value stays as it is.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from triplane.api.workflow import Parameter, ParameterType

_NAMED = re.compile(r"\[\[([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)\]\]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INT64 = 2**63
"""CEL's ``int`` has 64 bits."""
SHOWN = 40
"""Characters of a refused value that a message shows."""


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


def declaration_problems(declared: Sequence[Parameter]) -> tuple[tuple[str, str], ...]:
    """What is wrong with the parameters as a Workflow declares them: ``(reason, message)`` each."""
    found = []
    for item in declared:
        if (item.type is ParameterType.SELECT) != bool(item.options):
            message = f"parameter {item.name}: options are what a Select may be; a Select has some, no other type has"
            found.append(("ParameterInvalid", message))
        elif item.default is not None and (wrong := _mismatch(item, item.default)):
            found.append(("ParameterInvalid", f"the default of parameter {item.name} {wrong}"))
    return tuple(found)


def settle(declared: Sequence[Parameter], given: Mapping[str, str]) -> Settled:
    """The value of each declared parameter: what the Node gives, else the default."""
    wrong = [
        ("ParameterUnknown", f"the Workflow has no parameter {name}; {_known([item.name for item in declared])}")
        for name in sorted(given.keys() - {item.name for item in declared})
    ]
    values = {}
    for item in declared:
        value = given.get(item.name, item.default)
        if value is None:
            wrong.append(("ParameterMissing", f"parameter {item.name} has no default: set it in spec.parameters"))
            continue
        if mismatch := _mismatch(item, value):
            wrong.append(("ParameterInvalid", f"parameter {item.name} {mismatch}"))
        values[item.name] = value
    return Settled(values, tuple(wrong))


def _known(names: Collection[str]) -> str:
    return f"it has {', '.join(sorted(names))}" if names else "it has none"


def _mismatch(item: Parameter, value: str) -> str | None:
    """How the value breaks the parameter's type; None when it does not."""
    shown = repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
    match item.type:
        case ParameterType.INTEGER:
            whole = _INTEGER.fullmatch(value) is not None and -_INT64 <= int(value) < _INT64
            return None if whole else f"is {shown}, not a whole number of 64 bits"
        case ParameterType.DECIMAL:
            number = _DECIMAL.fullmatch(value) is not None and math.isfinite(float(value))
            return None if number else f"is {shown}, not a decimal number"
        case ParameterType.BOOLEAN:
            return None if value in ("true", "false") else f"is {shown}, neither true nor false"
        case ParameterType.SELECT:
            options = item.options or []
            return None if value in options else f"is {shown}, none of {', '.join(options)}"
        case ParameterType.JSON:
            return None if _is_json(value) else f"is {shown}, not a JSON document (RFC 8259)"
        case ParameterType.TEXT:
            return None


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
