"""Every line a harness can say means something, and nothing it says is lost or trusted too far."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain.session import Usage
from triplane.session.harness.protocol import Record, Reflection, parse


def said(**line: object) -> object:
    return parse(json.dumps(line).encode())


def test_the_lines_of_the_protocol() -> None:
    assert said(type="progress", message="m", percent=40) == Record("activity", {"message": "m", "percent": 40})
    assert said(type="progress", message="m") == Record("activity", {"message": "m"})
    assert said(type="message", role="assistant", text="t") == Record("message", {"role": "assistant", "text": "t"})
    assert said(type="observation", observationId="o", kind="k", text="t") == Record(
        "observation", {"observationId": "o", "kind": "k", "text": "t"}
    )
    assert said(type="usage", inputTokens=1, outputTokens=2, costMinorUnits=3) == Usage(1, 2, 3)
    assert said(type="reflection", wentWell=["w"], wentBadly=[], lessons=["l"], confidence=80) == Reflection(
        ("w",), (), ("l",), 80
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("plain text", id="no JSON"),
        pytest.param("[1]", id="no object"),
        pytest.param("3", id="a number"),
        pytest.param('{"type":"unknown"}', id="an unknown type"),
        pytest.param('{"type":["usage"]}', id="a type that is no text"),
        pytest.param('{"message":"x"}', id="no type"),
        pytest.param('{"type":"progress"}', id="progress without message"),
        pytest.param('{"type":"progress","message":"m","percent":101}', id="over 100 percent"),
        pytest.param('{"type":"progress","message":"m","percent":true}', id="a boolean as percent"),
        pytest.param('{"type":"usage","inputTokens":-1}', id="negative usage"),
        pytest.param('{"type":"usage","inputTokens":1.5}', id="fractional usage"),
        pytest.param('{"type":"usage","inputTokens":NaN}', id="usage that is no number"),
        pytest.param('{"type":"usage","inputTokens":9007199254740992}', id="usage over 2^53-1"),
        pytest.param('{"type":"usage","inputTokens":' + "9" * 5000 + "}", id="a number of 5,000 digits"),
        pytest.param('{"type":"observation","observationId":"","text":"t"}', id="an empty observationId"),
        pytest.param('{"type":"reflection","wentWell":[],"wentBadly":[]}', id="a reflection that says nothing"),
        pytest.param('{"type":"reflection","wentWell":["  "],"wentBadly":[]}', id="a reflection of blanks"),
        pytest.param('{"type":"reflection","wentWell":"all","wentBadly":[]}', id="a reflection that is no list"),
        pytest.param('{"type":"reflection","wentWell":["w"],"confidence":101}', id="over-confident"),
        pytest.param(json.dumps({"type": "reflection", "wentWell": ["w"] * 21}), id="21 lines of reflection"),
        pytest.param("[" * 30000, id="nested without end"),
    ],
)
def test_anything_else_is_kept_as_it_was_printed(line: str) -> None:
    assert parse(line.encode()) == Record("message", {"stream": "stdout", "text": line})


@given(st.binary(max_size=200))
def test_no_octets_raise(line: bytes) -> None:
    parse(line)


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert parse(b'{"type":"message","text":"\\ud800"}') == Record("message", {"role": "assistant", "text": "?"})
