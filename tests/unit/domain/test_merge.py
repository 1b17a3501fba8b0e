"""Merging: each strategy, what it does with texts and with JSON, and what it refuses."""

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.work import Merge
from triplane.audit.digest import canonical_json
from triplane.domain import merge as module
from triplane.domain.merge import MAX_COMPOSED, Part, Unmergeable, merge


def part(step: str, content: Any, media_type: str | None = None, **more: str) -> Part:
    octets = content if isinstance(content, bytes) else orjson.dumps(content)
    kind = media_type or ("text/plain" if isinstance(content, bytes) else "application/json")
    return Part(step, "out", octets, kind, **more)


A = part("a", {"n": 1, "deep": {"x": [1, 2]}, "s": "héllo"})
B = part("b", {"n": 2})
TEXT, LINE = part("t", b"one"), part("l", b"two\n")
BINARY = part("z", b"\xff\x00", "application/octet-stream")


@pytest.mark.parametrize(
    ("parts", "how", "octets"),
    [
        pytest.param([A, BINARY], Merge.LAST_WRITE_WINS, b"\xff\x00", id="the last edge wins, octets as they are"),
        pytest.param(
            [part("a", {"s": "hé"}, path="/s")], Merge.LAST_WRITE_WINS, "hé".encode(), id="a text inside JSON"
        ),
        pytest.param(
            [part("a", {"v": {"b": 1, "a": 2}}, path="/v")],
            Merge.LAST_WRITE_WINS,
            b'{"a":2,"b":1}',
            id="a value inside JSON is canonical JSON",
        ),
        pytest.param([TEXT, LINE, TEXT], Merge.CONCAT, b"one\ntwo\none", id="texts get the newline they lack"),
        pytest.param([TEXT, BINARY, TEXT], Merge.CONCAT, b"one\xff\x00one", id="other octets get no newline"),
        pytest.param([TEXT, part("e", b""), TEXT], Merge.CONCAT, b"one\none", id="an empty text adds nothing"),
        pytest.param([part("e", b""), TEXT], Merge.CONCAT, b"one", id="no newline at the beginning"),
        pytest.param(
            [A, TEXT, part("n", [1])],
            Merge.ARRAY,
            b'[{"deep":{"x":[1,2]},"n":1,"s":"h\xc3\xa9llo"},"one",[1]]',
            id="an array of documents and texts",
        ),
        pytest.param([B, part("x.y", 3)], Merge.JSON_OBJECT, b'{"b":{"n":2},"x.y":3}', id="an object by step"),
        pytest.param(
            [part("a", {"v": 1}, path="/v", to="/p/q"), part("b", 2, to="/p/r"), part("c", 3, to="/p/q")],
            Merge.JSON_OBJECT,
            b'{"p":{"q":3,"r":2}}',
            id="an object by pointers, the later edge wins",
        ),
        pytest.param(
            [part("a", {"x": 1}, to=""), part("b", {"y": 2}, to="")],
            Merge.JSON_OBJECT,
            b'{"x":1,"y":2}',
            id="objects poured into one",
        ),
    ],
)
def test_what_becomes_of_the_parts(parts: list[Part], how: Merge, octets: bytes) -> None:
    assert merge(parts, how) == octets


@pytest.mark.parametrize(
    ("parts", "how", "reason", "message"),
    [
        pytest.param(
            [part("a", {"n": 1}, path="/m")],
            Merge.LAST_WRITE_WINS,
            "InputPathMissing",
            "output out of step a: /m leads nowhere",
            id="a path that is not there",
        ),
        pytest.param(
            [part("a", b"text", path="/m")], Merge.ARRAY, "InputNotMergeable", "is no JSON", id="a path into a text"
        ),
        pytest.param([BINARY], Merge.ARRAY, "InputNotMergeable", "no UTF-8 text", id="octets in an array"),
        pytest.param(
            [part("a", b"{", "application/json")],
            Merge.JSON_OBJECT,
            "InputNotMergeable",
            "is no JSON",
            id="broken JSON",
        ),
        pytest.param(
            [part("a", 1, to="")],
            Merge.JSON_OBJECT,
            "InputNotMergeable",
            "only be filled by an object",
            id="a number as the whole object",
        ),
        pytest.param(
            [part("a", 1, to="/x"), part("b", 1, to="/x/y")],
            Merge.JSON_OBJECT,
            "InputNotMergeable",
            "leads through a number at /x",
            id="a place inside a number",
        ),
        pytest.param(
            [part("a", b"[9007199254740993]", "application/json")],
            Merge.ARRAY,
            "InputNotMergeable",
            "no canonical form",
            id="an integer that readers disagree about",
        ),
    ],
)
def test_what_cannot_be_merged_is_named(parts: list[Part], how: Merge, reason: str, message: str) -> None:
    with pytest.raises(Unmergeable) as raised:
        merge(parts, how)
    assert raised.value.reason == reason
    assert message in str(raised.value)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_COMPOSED == 4 * 1024 * 1024
    monkeypatch.setattr(module, "MAX_COMPOSED", 5)
    assert merge([part("a", b"12345")], Merge.CONCAT) == b"12345"
    with pytest.raises(Unmergeable, match="7 octets would be composed, 5 are allowed") as raised:
        merge([part("a", b"123"), part("b", b"456")], Merge.CONCAT)
    assert raised.value.reason == "InputTooLarge"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(_JSON, min_size=1, max_size=5), st.sampled_from([Merge.ARRAY, Merge.JSON_OBJECT]), st.integers())
def test_the_spelling_of_the_sources_does_not_matter(values: list[Any], how: Merge, seed: int) -> None:
    """The same documents, written with other spaces and another order of members, give the same octets."""
    plain = [part(f"s{number}", value) for number, value in enumerate(values)]
    spelt = [
        Part(
            f"s{number}",
            "out",
            orjson.dumps(_shuffled(value, random.Random(seed)), option=orjson.OPT_INDENT_2),
            "application/json",
        )
        for number, value in enumerate(values)
    ]
    assert merge(plain, how) == merge(spelt, how)
    expected: Any = values if how is Merge.ARRAY else {f"s{number}": value for number, value in enumerate(values)}
    assert merge(plain, how) == canonical_json(expected)


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, list):
        return [_shuffled(item, rng) for item in value]
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffled(value[key], rng) for key in keys}
    return value
