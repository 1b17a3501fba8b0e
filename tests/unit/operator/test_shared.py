"""What is equal is the same, what is not is not, and what is remembered is bounded."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.objects import make

from triplane.operator.index import Index
from triplane.operator.shared import LONGEST, Shared

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=2), JSON, max_size=5)


def typed(value: Any) -> Any:
    """The value so that 1, 1.0 and True differ, as they do in JSON."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


@given(st.lists(OBJECTS, max_size=8), st.integers(0, 20))
def test_every_object_stays_what_it_was(objects: list[dict[str, Any]], remembered: int) -> None:
    shared, before = Shared(remembered), deepcopy(objects)
    made = [shared.of(obj) for obj in objects]
    assert typed(made) == typed(before) == typed(objects)


def test_equal_parts_of_two_objects_are_one() -> None:
    index, owner = Index(), {"kind": "Task", "uid": "u-1"}
    for name in ("one", "other"):
        part = {"taskRef": dict(owner), "snapshot": [{"role": "".join(["age", "nt"])}], "name": name}
        index.put(make("AgentSession", name, spec=part))
    one, other = (index.get("AgentSession", "team", name) for name in ("one", "other"))
    assert one is not None
    assert other is not None
    assert one["spec"]["taskRef"] is other["spec"]["taskRef"]
    assert one["spec"]["snapshot"] is other["spec"]["snapshot"]
    assert one["spec"] is not other["spec"]


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 2], [2, 1]), ({"a": 1}, {"b": 1}), ({"a": {"b": "c"}}, {"a": {"c": "b"}}), ([], {}), (["a", []], ["a", {}])],
    ids=["another order", "other keys", "keys for values", "a list for a mapping", "deeper"],
)
def test_parts_that_look_alike_are_kept_apart(one: Any, other: Any) -> None:
    shared = Shared()
    assert [shared.of({"spec": {"part": part}})["spec"]["part"] for part in (one, other, one)] == [one, other, one]


def test_what_is_large_is_not_remembered_nor_what_holds_it() -> None:
    shared = Shared()
    parts = {"text": ["x" * (LONGEST + 1)], "list": [list(range(LONGEST + 1))]}
    kept = shared.of({"spec": {"parts": {"small": ["small"], **parts}}})
    again = shared.of({"spec": {"parts": {"small": ["small"], **parts}}})
    assert kept["spec"]["parts"]["small"] is again["spec"]["parts"]["small"]
    assert kept["spec"]["parts"] is not again["spec"]["parts"]
    assert all(kept["spec"]["parts"][name] is not again["spec"]["parts"][name] for name in parts)


def test_what_is_remembered_does_not_grow_with_the_objects() -> None:
    shared = Shared(remembered=100)
    sizes = []
    for number in range(200):
        shared.of({"spec": {"names": [f"name-{number}-{part}" for part in range(10)]}})
        sizes.append(len(shared))
    assert max(sizes) < 120
