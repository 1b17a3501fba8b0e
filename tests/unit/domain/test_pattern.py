"""Patterns for names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain.pattern import any_fits, fits


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        pytest.param("git", "git", True, id="itself"),
        pytest.param("git", "github", False, id="the whole name, not its beginning"),
        pytest.param("git*", "github", True, id="a star stands for any characters"),
        pytest.param("git*", "git", True, id="and for none"),
        pytest.param("git*", "git/push", False, id="but for no slash"),
        pytest.param("git/*", "git/push", True, id="one on either side of a slash"),
        pytest.param("*/*", "git/push", True, id="two stars"),
        pytest.param("a***b", "axyb", True, id="stars in a row are one"),
        pytest.param("**", "git/push/now", True, id="two stars alone are everything"),
        pytest.param("a.c", "abc", False, id="a dot is a dot"),
        pytest.param("a*", "a\nb", True, id="a line break is a character"),
    ],
)
def test_a_pattern_fits(pattern: str, name: str, expected: bool) -> None:
    assert fits(pattern, name) is expected


@given(st.lists(st.text("ab*/", max_size=6), max_size=4), st.text("ab/", max_size=8))
def test_a_list_fits_when_one_of_it_does(patterns: list[str], name: str) -> None:
    assert any_fits(patterns, name) == any(fits(pattern, name) for pattern in patterns)
    assert any_fits(None, name)
    assert not any_fits([], name)
