"""What a text may hold: the patterns, as the models enforce them, and the one way to make any text fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from triplane.api.text import Line, Prose, plain_line

LINE = TypeAdapter(Line)
PROSE = TypeAdapter(Prose)
UNSEEN = ["\x00", "\x1b", "\x7f", "\x9b", "\u00ad", "\u200b", "\u202e", "\u2028", "\ufeff", "\U000e0041"]


@pytest.mark.parametrize("unseen", UNSEEN, ids=lambda text: f"U+{ord(text):04X}")
def test_what_readers_cannot_see_is_refused(unseen: str) -> None:
    for adapter in (LINE, PROSE):
        with pytest.raises(ValidationError):
            adapter.validate_python(f"a{unseen}b")
    assert plain_line(f"a{unseen}b") in {"a\ufffdb", "a b"}


def test_prose_has_lines_and_a_line_has_none() -> None:
    PROSE.validate_python("a\n\tb\r\n")
    for text in ("a\nb", "a\tb", "a\n"):
        with pytest.raises(ValidationError):
            LINE.validate_python(text)
        LINE.validate_python(plain_line(text))


def test_many_scripts_and_emoji_are_text() -> None:
    text = "Zähle — 数える считать احسب ספור ❤️ 👍🏽"
    assert LINE.validate_python(text) == plain_line(text) == text


def test_a_lone_surrogate_becomes_visible() -> None:
    assert plain_line("a\ud800b") == "a\ufffdb"


@given(st.text(max_size=256))
def test_any_text_can_be_made_a_line(text: str) -> None:
    line = plain_line(text)
    LINE.validate_python(line)
    assert len(line) <= len(text)
    assert plain_line(line) == line
