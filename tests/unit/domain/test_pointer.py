"""JSON Pointer: the examples of RFC 6901 section 5, and what leads nowhere."""

from typing import Any

import pytest

from triplane.domain.pointer import PointerMissing, get, put, tokens

DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
    ],
)  # fmt: skip
def test_examples_of_the_standard(pointer: str, value: Any) -> None:
    assert get(DOCUMENT, pointer) == value


def test_an_escaped_tilde_before_a_one_is_no_slash() -> None:
    assert tokens("/~01") == ("~1",)


@pytest.mark.parametrize(
    ("pointer", "why"),
    [
        pytest.param("/nope", "the object at the root has no 'nope'", id="a missing member"),
        pytest.param("/foo/2", "the array of 2 at /foo has no '2'", id="an index past the end"),
        pytest.param("/foo/-", "the array of 2 at /foo has no '-'", id="the member after the last"),
        pytest.param("/foo/01", "has no '01'", id="an index with a leading zero"),
        pytest.param("/foo/0/x", "a text at /foo/0 has no 'x'", id="through a text"),
        pytest.param("/a~1b/x", "a number at /a/b has no 'x'", id="through a number"),
    ],
)
def test_what_is_not_there_is_named(pointer: str, why: str) -> None:
    with pytest.raises(PointerMissing, match=pointer.replace("/", "/")) as raised:
        get(DOCUMENT, pointer)
    assert why in str(raised.value)


def test_no_pointer_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="must be empty or begin with /"):
        tokens("foo")


def test_put_makes_the_objects_on_the_way_and_replaces_what_was_there() -> None:
    document: dict[str, Any] = {"a": {"x": 1}}
    put(document, "/a/b/c~1d", [1])
    put(document, "/a/x", 2)
    assert document == {"a": {"x": 2, "b": {"c/d": [1]}}}


def test_the_empty_pointer_puts_members_into_the_document() -> None:
    document: dict[str, Any] = {"kept": 1, "replaced": 1}
    put(document, "", {"replaced": 2})
    assert document == {"kept": 1, "replaced": 2}
    with pytest.raises(PointerMissing, match="only be filled by an object, not by a text"):
        put(document, "", "no object")


def test_put_does_not_lead_through_values() -> None:
    with pytest.raises(PointerMissing, match="leads through a number at /a"):
        put({"a": 1}, "/a/b", 2)
