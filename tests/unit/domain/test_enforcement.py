"""Every axis has somebody who enforces it, or says that nobody does; table and page say the same."""

import re
from pathlib import Path

import pytest

from triplane.api.authority import Axis
from triplane.domain.enforcement import ENFORCEMENT, unenforced

PAGE = (Path(__file__).parents[3] / "docs/reference/enforcement.md").read_text()
ROWS = {
    axis: tuple(cell.strip() for cell in cells.split("|"))
    for axis, cells in re.findall(r"(?m)^\| `([\w.]+)` \|(.*)\|$", PAGE)
}


def test_every_axis_has_a_row_in_the_table_and_on_the_page() -> None:
    assert set(ENFORCEMENT) == set(Axis)
    assert set(ROWS) == {axis.value for axis in Axis}


@pytest.mark.parametrize("axis", list(Axis), ids=lambda axis: axis.value)
def test_the_page_admits_what_nothing_enforces_and_nothing_else(axis: Axis) -> None:
    _, without, rests_on = ROWS[axis.value]
    admits = re.search(r"\bnothing\b", without) is not None
    assert admits is (ENFORCEMENT[axis].unisolated is None), without
    told = "harness" in rests_on
    assert told is ENFORCEMENT[axis].self_reported, rests_on


def test_in_a_sandbox_every_axis_is_enforced() -> None:
    assert unenforced([axis.value for axis in Axis], isolated=True) == ()


def test_without_one_the_axes_that_need_it_are_named_in_order() -> None:
    assert unenforced([axis.value for axis in Axis], isolated=False) == (
        "budget.wallClockSeconds",
        "egress",
        "paths",
        "secrets",
        "tools",
    )
    assert unenforced(["models", "budget.tokens"], isolated=False) == ()


def test_an_axis_of_a_later_version_is_enforced_by_nobody() -> None:
    assert unenforced(["budget.carbon"], isolated=True) == ("budget.carbon",)
