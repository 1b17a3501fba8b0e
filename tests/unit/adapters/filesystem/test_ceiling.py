"""The installation's ceiling, read from a file that somebody writes by hand."""

from pathlib import Path

import pytest

from triplane.adapters.filesystem.ceiling import read_ceiling
from triplane.api.authority import Axis
from triplane.domain.authority import BUILT_IN
from triplane.errors import InvalidInput


def written(folder: Path, text: str) -> Path:
    path = folder / "authority.yaml"
    path.write_text(text)
    return path


def test_without_a_file_it_is_the_built_in_one() -> None:
    found = read_ceiling(None)
    assert found.resolved == BUILT_IN
    assert found.axes == frozenset()


def test_what_the_file_leaves_out_is_as_built_in(tmp_path: Path) -> None:
    found = read_ceiling(
        written(tmp_path, "mayUse: {egress: [a.example]}\nmayDelegate: {egress: ['*.example', '10.0.0.0/8:8443']}")
    )
    assert found.resolved.may_use.egress == ["a.example"]
    assert found.resolved.may_delegate.egress == ["*.example", "10.0.0.0/8:8443"]
    assert found.resolved.may_delegate.secrets == BUILT_IN.may_delegate.secrets
    assert found.resolved.may_use.delegation_depth == 8
    assert found.axes == {Axis.EGRESS}


def test_less_to_hand_on_is_less_to_use(tmp_path: Path) -> None:
    found = read_ceiling(written(tmp_path, "mayDelegate: {tools: [files/*]}"))
    assert found.resolved.may_use.tools == ["files/*"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "must hold a mapping", id="an empty file"),
        pytest.param("- a", "must hold a mapping", id="a list"),
        pytest.param("a: [", "is not YAML", id="no YAML"),
        pytest.param("mayuse: {}", "mayuse: Extra inputs are not permitted", id="a misspelt set"),
        pytest.param("mayUse: {egres: []}", "mayUse.egres: Extra inputs", id="a misspelt axis"),
        pytest.param("mayUse: {egress: ['a b']}", "mayUse.egress.0", id="a pattern that is none"),
        pytest.param(
            "mayUse: {egress: ['10.0.0.1']}", "mayUse must be within mayDelegate: egress 10.0.0.1 is beyond *",
            id="more to use than to hand on",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInput) as refused:
        read_ceiling(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_or_far_too_large(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_ceiling(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="more than 262144 octets"):
        read_ceiling(written(tmp_path, " " * 300_000))
