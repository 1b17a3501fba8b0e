"""What is a reflection, and what a search finds in it."""

from typing import Any

import pytest

from triplane.domain.reflection import as_sure, mentions, reflection_problem

GOOD = {"wentWell": ["Found the Figures"], "wentBadly": ["Slow"], "lessons": ["Ask for units"], "confidence": 80}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param((), True, id="no words are in everything"),
        pytest.param(("figures",), True, id="case does not matter"),
        pytest.param(("figures", "units"), True, id="words may stand in different lines"),
        pytest.param(("figures", "tokens"), False, id="every word must be there"),
        pytest.param(("wentWell",), False, id="names of members are not what it says"),
        pytest.param(("FiguresSlow",), False, id="no word reaches over two lines"),
    ],
)
def test_a_search_for_words(words: tuple[str, ...], found: bool) -> None:
    assert mentions(GOOD, words) is found


@pytest.mark.parametrize(
    ("document", "least", "expected"),
    [
        pytest.param(GOOD, 80, True, id="as sure as asked"),
        pytest.param(GOOD, 81, False, id="less sure"),
        pytest.param({**GOOD, "confidence": None}, 0, False, id="one that tells none is not sure"),
        pytest.param({**GOOD, "confidence": None}, None, True, id="nothing is asked"),
    ],
)
def test_a_search_for_confidence(document: dict[str, Any], least: int | None, expected: bool) -> None:
    assert as_sure(document, least) is expected


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"wentWell": [], "wentBadly": []}, id="it says nothing"),
        pytest.param({"confidence": 101}, id="surer than sure"),
        pytest.param({"confidence": True}, id="a truth is no number"),
        pytest.param({"wentWell": [" "]}, id="a blank line"),
        pytest.param({"lessons": ["x" * 2001]}, id="a line that is too long"),
        pytest.param({"opinion": "good"}, id="an unknown member"),
        pytest.param({"source": "reviewer"}, id="an unknown author"),
    ],
)
def test_what_is_no_reflection(change: dict[str, Any]) -> None:
    assert reflection_problem(GOOD) is None
    assert reflection_problem({**GOOD, **change}) is not None
