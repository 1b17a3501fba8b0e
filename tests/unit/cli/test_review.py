"""``triplane review``: what a person is shown before they answer."""

import pytest

from triplane.api.meta import Gate
from triplane.cli.review import _lines
from triplane.domain.asking import Asking

DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize("gate", [Gate.TOOL, Gate.OUTPUTS])
def test_what_is_judged_can_be_looked_at(gate: Gate) -> None:
    lines = _lines("rent", Asking(gate, 1, ("bob",), (("call-1-1", DIGEST),), ""))
    assert f"  judged     call-1-1 {DIGEST}" in lines
    assert f"  look at it: triplane blob get {DIGEST}" in lines


def test_a_snapshot_is_no_blob_of_its_own() -> None:
    assert not any(
        "blob get" in line for line in _lines("rent", Asking(Gate.LAUNCH, 1, ("bob",), (("a", DIGEST),), ""))
    )
