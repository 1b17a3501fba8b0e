"""Media types and JSON Schemas: what is refused, and with which place."""

import socket
from typing import Any

import pytest

from triplane.domain.contract import contract_problem, is_checkable, schema_problem, secret_problem

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>'
OUTSIDE = b'<!DOCTYPE svg SYSTEM "file:///etc/passwd"><svg/>'
TOTAL = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}}


@pytest.mark.parametrize(
    ("content", "media_type", "schema"),
    [
        pytest.param(b'{"a":1}', "application/json", None, id="JSON"),
        pytest.param(b"[]", "application/vnd.x+json", None, id="a JSON dialect"),
        pytest.param(SVG, "image/svg+xml", None, id="SVG"),
        pytest.param(b"<?xml version='1.0'?><svg/>", "image/svg+xml", None, id="SVG without a namespace"),
        pytest.param(b"<a><b/></a>", "application/xml", None, id="XML"),
        pytest.param("# Ü\n".encode(), "text/markdown", None, id="text"),
        pytest.param(b"", "text/plain", None, id="empty text"),
        pytest.param(b"\x00\xff", "application/octet-stream", None, id="anything"),
        pytest.param(b'{"rows":[1,2]}', "application/json", TOTAL, id="JSON that meets its schema"),
    ],
)
def test_content_that_is_what_it_says_is_accepted(content: bytes, media_type: str, schema: Any) -> None:
    assert contract_problem(content, media_type, schema) is None


@pytest.mark.parametrize(
    ("content", "media_type", "schema", "says"),
    [
        pytest.param(b"{", "application/json", None, "not JSON", id="no JSON"),
        pytest.param(b'{"a":NaN}', "application/json", None, "not JSON", id="NaN"),
        pytest.param(b"[" * 100_000, "application/json", None, "not JSON", id="nested without end"),
        pytest.param(b"<html/>", "image/svg+xml", None, "not SVG", id="XML that is no SVG"),
        pytest.param(b'<svg xmlns="urn:x"/>', "image/svg+xml", None, "not SVG", id="svg of another namespace"),
        pytest.param(b"<svg>", "image/svg+xml", None, "not XML", id="unclosed"),
        pytest.param(BOMB, "image/svg+xml", None, "DOCTYPE", id="an entity bomb"),
        pytest.param(OUTSIDE, "image/svg+xml", None, "DOCTYPE", id="an external entity"),
        pytest.param(b"a\x00b", "text/plain", None, "octet 1 is NUL", id="NUL in text"),
        pytest.param(b"abc\xff", "text/markdown", None, "octet 3 is 0xff", id="no UTF-8"),
        pytest.param(b"a", "text/plain", TOTAL, "is not JSON", id="a schema on text"),
        pytest.param(b'{"rows":[1,"2"]}', "application/json", TOTAL, "at /rows/1", id="against the schema"),
        pytest.param(
            b'{"a/b":{"c~d":1}}',
            "application/json",
            {"properties": {"a/b": {"properties": {"c~d": {"type": "string"}}}}},
            "at /a~1b/c~0d",
            id="a pointer with both escapes",
        ),
        pytest.param(b"1", "application/json", {"type": 7}, "the schema is invalid", id="an invalid schema"),
        pytest.param(b'"a"', "application/json", {"pattern": "("}, "the schema is invalid", id="an invalid expression"),
        pytest.param(
            b"1",
            "application/json",
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "only https://json-schema.org/draft/2020-12/schema",
            id="another dialect",
        ),
    ],
)
def test_a_broken_contract_names_the_place(content: bytes, media_type: str, schema: Any, says: str) -> None:
    problem = contract_problem(content, media_type, schema)
    assert problem is not None
    assert says in problem


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:1/s.json", "https://example.com/s", "file:///etc/passwd", "other.json"]
)
def test_a_reference_out_of_the_schema_is_never_fetched(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody went to the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    problem = contract_problem(b"1", "application/json", {"$ref": reference})
    assert problem is not None
    assert "nothing is fetched" in problem


def test_references_within_the_schema_and_to_the_meta_schema_work() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    assert contract_problem(b"1", "application/json", schema) is None
    assert contract_problem(b'"x"', "application/json", schema) is not None
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert contract_problem(b'{"type":"string"}', "application/json", meta) is None
    assert contract_problem(b'{"type":7}', "application/json", meta) is not None


def test_a_schema_that_refers_to_itself_for_ever_is_a_problem() -> None:
    problem = contract_problem(b"1", "application/json", {"$ref": "#"})
    assert problem is not None
    assert "nested too deeply" in problem


def test_a_message_quotes_neither_secrets_nor_control_characters_nor_whole_documents() -> None:
    problem = contract_problem(
        b'{"a":"\\u001b[31m password=hunter2 ' + b"x" * 5000 + b'"}', "application/json", {"type": "array"}
    )
    assert problem is not None
    assert "hunter2" not in problem
    assert "\x1b" not in problem
    assert len(problem) < 500


def test_schemas_are_judged_alone() -> None:
    assert schema_problem({"type": "object"}) is None
    assert schema_problem({"required": "x"}) is not None


@pytest.mark.parametrize(
    ("media_type", "schema", "expected"),
    [
        ("text/html", None, True),
        ("application/json", None, True),
        ("image/svg+xml", None, True),
        ("image/png", None, False),
        ("image/png", {}, True),
    ],
)
def test_only_what_can_be_checked_is_read(media_type: str, schema: Any, expected: bool) -> None:
    assert is_checkable(media_type, schema) is expected


def test_a_secret_in_a_textual_output_is_a_problem_and_in_others_is_not_looked_for() -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----"
    assert "private-key" in (secret_problem(key, "text/plain") or "")
    assert secret_problem(key, "image/png") is None
    assert secret_problem(b"password=hunter2", "text/plain") is None
