"""Contracts of outputs: does this content have its media type and meet its JSON Schema?

Pure, but not bounded: a hostile schema can cost any amount of time (regular expressions, branching references), so the
gateway runs ``contract_problem`` in a process it can kill. Schemas are JSON Schema 2020-12; references leave the
schema only to the published meta-schemas, nothing is ever fetched.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.parsers import expat

import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from triplane.domain.journal import escape_text
from triplane.domain.redaction import marked_secrets, redact_text

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SVG: Final = "http://www.w3.org/2000/svg"
MAX_MESSAGE: Final = 400
_SECRET_LIMIT: Final = 16 * 1024 * 1024
"""Octets of a text that are searched for secrets."""
_TEXTUAL = re.compile(r"text/.+|application/(?:json|xml|yaml|toml|javascript)|image/svg\+xml|.+\+(?:json|xml)")


class _RefusedError(Exception):
    """The content is not what its media type says."""


def contract_problem(content: bytes, media_type: str, schema: Mapping[str, Any] | None) -> str | None:
    """Why the content breaks its contract, with the place (a JSON pointer, or line and column); None if it meets it.

    JSON parses and meets ``schema``; SVG is XML with an ``svg`` root; XML is well-formed and has no DOCTYPE; text is
    UTF-8 without NUL. Other media types are taken as they are. A schema on something that is not JSON is a problem.
    """
    try:
        document = _parse(content, media_type)
    except _RefusedError as refused:
        return _one_line(str(refused))
    if schema is None:
        return None
    if not _is_json(media_type):
        return f"the contract has a JSON Schema, but {media_type} is not JSON"
    return schema_problem(schema) or _instance_problem(document, schema)


def is_checkable(media_type: str, schema: Mapping[str, Any] | None) -> bool:
    """Whether the content has to be looked at: its type is one that can be checked, or there is a schema."""
    return schema is not None or _TEXTUAL.fullmatch(media_type) is not None


def secret_problem(content: bytes, media_type: str) -> str | None:
    """Why a textual output may not become an Artifact: it holds what is plainly a secret. None if it does not."""
    if not _TEXTUAL.fullmatch(media_type):
        return None
    found = marked_secrets(content[:_SECRET_LIMIT].decode("utf-8", "replace"))
    return f"the content holds what looks like a secret ({', '.join(found)}); leave it out" if found else None


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why this is no usable JSON Schema 2020-12; None if it is."""
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        return _one_line(f"the schema's $schema is {dialect!r}; only {DIALECT} is understood")
    try:
        Draft202012Validator.check_schema(dict(schema), format_checker=FormatChecker(["regex"]))
    except SchemaError as error:
        return _one_line(f"the schema is invalid at {_pointer(error.absolute_path)}: {error.message}")
    except RecursionError:
        return "the schema is nested too deeply"
    return None


def arguments_problem(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Why the arguments do not meet a schema that is not ours to write; None if they do. It may be of any published
    dialect that its ``$schema`` names (2020-12 if it names none): servers of tools are older than their protocol."""
    none: Any = None
    dialect: Any = validator_for(dict(schema), default=none) if "$schema" in schema else Draft202012Validator
    if dialect is None:
        return _one_line(f"the schema's $schema is {schema['$schema']!r}, which is no published dialect")
    try:
        dialect.check_schema(dict(schema))
    except SchemaError as error:
        return _one_line(f"the schema is invalid at {_pointer(error.absolute_path)}: {error.message}")
    except RecursionError:
        return "the schema is nested too deeply"
    return _instance_problem(dict(arguments), schema, dialect)


def _instance_problem(document: Any, schema: Mapping[str, Any], dialect: Any = Draft202012Validator) -> str | None:
    """The most telling error. The registry is given, so an unknown reference fails instead of being fetched."""
    validator = dialect(dict(schema), registry=REGISTRY)
    try:
        error = best_match(validator.iter_errors(document))
    except Unresolvable as missing:
        return _one_line(
            f"the schema refers to {missing.ref!r}, which is not in it; nothing is fetched: put it under $defs"
        )
    except RecursionError:
        return "the content or its schema is nested too deeply"
    except re.error as broken:
        return _one_line(f"the schema has an invalid regular expression: {broken}")
    if error is None:
        return None
    return _one_line(f"at {_pointer(error.absolute_path)}: {error.message}")


def _parse(content: bytes, media_type: str) -> Any:
    """The parsed JSON, or None for the other types; raises ``_RefusedError``."""
    if _is_json(media_type):
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise _RefusedError(f"not JSON: {error}") from error
    if media_type == "image/svg+xml":
        _check_xml(content, svg=True)
    elif media_type in {"application/xml", "text/xml"} or media_type.endswith("+xml"):
        _check_xml(content, svg=False)
    elif media_type.startswith("text/"):
        _check_text(content)
    return None


def _check_text(content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _RefusedError(f"not UTF-8 text: octet {error.start} is {content[error.start]:#04x}") from error
    if (place := content.find(b"\0")) >= 0:
        raise _RefusedError(f"not text: octet {place} is NUL")


def _check_xml(content: bytes, *, svg: bool) -> None:
    """Well-formed, one root, no DOCTYPE: without one there are no entities to expand and nothing to fetch."""
    parser = expat.ParserCreate(namespace_separator=" ")
    roots: list[str] = []

    def doctype(*_: object) -> None:
        raise _RefusedError(f"XML with a DOCTYPE (line {parser.CurrentLineNumber}) is refused; leave it out")

    def start(name: str, _: object) -> None:
        if not roots:
            roots.append(name)

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise _RefusedError(f"not XML: {error}") from error
    if svg and roots[0] not in {"svg", f"{SVG} svg"}:
        raise _RefusedError(f"not SVG: the root element is {roots[0]!r}, not svg in {SVG}")


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _pointer(path: Any) -> str:
    """RFC 6901; the whole document is shown as ``/``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path) or "/"


def _one_line(text: str) -> str:
    """Validators quote the content: what they say is cleaned, and cut, before anybody sees it."""
    text = escape_text(redact_text(text), lines=True)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
