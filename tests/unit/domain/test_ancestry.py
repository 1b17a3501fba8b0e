"""Cycles through one Task, over whatever is known of the others."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain.ancestry import cycle_through, stored_dependencies

NAMES = st.sampled_from("abcdef")
GRAPHS = st.dictionaries(NAMES, st.lists(NAMES, max_size=4).map(lambda names: tuple(sorted(set(names)))), max_size=6)


@pytest.mark.parametrize(
    ("known", "cycle"),
    [
        pytest.param({"a": ["a"]}, ("a", "a"), id="a Task that waits for itself"),
        pytest.param({"a": ["b"], "b": ["c"], "c": ["a"]}, ("a", "b", "c", "a"), id="a ring"),
        pytest.param({"a": ["b", "c"], "b": ["d"], "d": ["a"], "c": ["a"]}, ("a", "c", "a"), id="the shortest of two"),
        pytest.param({"a": ["b"], "b": ["c"], "c": ["b"]}, None, id="a ring further on is not through it"),
        pytest.param({"a": ["b"]}, None, id="a dangling reference"),
        pytest.param({}, None, id="nothing known"),
    ],
)
def test_a_cycle_through_a_task(known: dict[str, list[str]], cycle: tuple[str, ...] | None) -> None:
    assert cycle_through("a", known) == cycle


@given(GRAPHS)
def test_what_is_found_is_a_cycle_and_what_is_not_found_is_not_there(known: dict[str, tuple[str, ...]]) -> None:
    found = cycle_through("a", known)
    reached: set[str] = set()
    level = set(known.get("a", ()))
    while level - reached:
        reached |= level
        level = {after for name in level for after in known.get(name, ())}
    assert (found is not None) == ("a" in reached)
    if found is not None:
        assert found[0] == found[-1] == "a"
        assert len(set(found)) == len(found) - 1
        assert all(after in known[name] for name, after in pairwise(found))


def test_dependencies_are_read_from_whatever_is_stored() -> None:
    task = {
        "spec": {
            "dependsOn": ["z", "a"],
            "inputs": [
                {"name": "one", "from": {"task": "b", "output": "o"}},
                {"name": "two", "sources": [{"task": "a", "output": "o"}, {"step": "not-a-task", "output": "o"}]},
                {"name": "three", "digest": "sha256:" + "0" * 64},
            ],
        }
    }
    assert stored_dependencies(task) == ("a", "b", "z")
    assert stored_dependencies({}) == ()
