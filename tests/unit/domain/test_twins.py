"""Twins: pairs that a reader cannot tell apart, and pairs that they can."""

import pytest

from triplane.domain.twins import skeleton, spelled, twins


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("jos\u00e9", "jose\u0301", id="composed and decomposed"),
        pytest.param("alice", "\u0430lice", id="a Cyrillic a"),
        pytest.param("ALICE", "\u0410LICE", id="a Cyrillic capital"),
        pytest.param("omega", "\u03bfmega", id="a Greek omicron"),
        pytest.param("ohm \u2126", "ohm \u03a9", id="a sign that is a letter"),
        pytest.param("fire", "\ufb01re", id="a ligature"),
        pytest.param("alice", "\uff41\uff4c\uff49\uff43\uff45", id="full-width letters"),
        pytest.param("\u0441\u043e\u0440", "cop", id="a word of one script that spells one of another"),
    ],
)
def test_twins_are_found_and_named_in_order(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)
    assert list(twins(["before", one, "between", other])) == [(one, other)]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["alice", "Alice"], id="capitals are told apart"),
        pytest.param(["alice", "alice"], id="the same name twice is no twin"),
        pytest.param(["jose", "jos\u00e9"], id="an accent is told apart"),
        pytest.param(["\u4e00", "\u4e8c", "\u4e09"], id="other scripts"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_a_reader_tells_apart_is_no_twin(names: list[str]) -> None:
    assert list(twins(names)) == []


def test_each_later_twin_is_named_once() -> None:
    assert list(twins(["a", "\u0430", "\uff41"])) == [("a", "\u0430"), ("a", "\uff41")]


def test_twins_differ_when_they_are_spelled() -> None:
    assert spelled("\u0430lice") == "\\u0430lice"
