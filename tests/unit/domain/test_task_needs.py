"""What a Task needs from others: names, cycles, what conditions see, which edges bring something."""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from tests.unit.domain.task_world import task

from triplane.api.work import Input
from triplane.domain.task_needs import (
    AcceptedOutput,
    Dependency,
    Standing,
    bringing,
    compose,
    dependency_names,
    distinct_steps,
    find_cycle,
    is_plain,
    output_missing,
    variables,
)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def done(name: str, **outputs: str) -> Dependency:
    accepted = {key: AcceptedOutput(value, "application/json", 3) for key, value in outputs.items()}
    return Dependency(name, name, Standing.COMPLETED, f"uid-{name}", outputs=accepted)


def test_everything_named_is_waited_for_once_and_in_order() -> None:
    made = task(
        dependsOn=["z", "a"],
        inputs=[
            {"name": "one", "from": {"task": "b", "output": "o"}},
            {"name": "two", "sources": [{"task": "a", "output": "o"}, {"task": "c", "output": "o"}]},
            {"name": "three", "value": "text"},
        ],
    )
    assert dependency_names(made) == ("z", "a", "b", "c")


@pytest.mark.parametrize(
    ("graph", "way"),
    [
        pytest.param({"a": ["a"]}, ("a", "a"), id="on itself"),
        pytest.param({"a": ["b"], "b": ["a"]}, ("a", "b", "a"), id="two"),
        pytest.param({"a": ["x", "b"], "b": ["c"], "c": ["d"], "d": ["a"], "x": ["c"]}, ("a", "x", "c", "d", "a"),
                     id="the shortest way of two"),
        pytest.param({"a": ["b"], "b": ["c"], "c": ["b"]}, (), id="a cycle it only leads to is not its own"),
        pytest.param({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, (), id="a diamond is none"),
        pytest.param({"a": ["gone"]}, (), id="a Task that is not there"),
    ],
)  # fmt: skip
def test_cycles_are_spelled_out(graph: Mapping[str, Sequence[str]], way: tuple[str, ...]) -> None:
    assert find_cycle("a", lambda name: graph.get(name, ())) == way


def test_every_cycle_in_random_graphs_is_a_way_back() -> None:
    found = 0
    for seed in range(300):
        rng = random.Random(seed)
        names = [f"n{number}" for number in range(8)]
        graph = {name: rng.sample(names, rng.randrange(3)) for name in names}
        for name in names:
            way = find_cycle(name, lambda item, graph=graph: graph[item])  # type: ignore[misc]
            reachable = _reachable(name, graph)
            assert bool(way) == (name in reachable)
            found += bool(way)
            assert not way or (way[0] == way[-1] == name)
            assert all(after in graph[before] for before, after in pairwise(way))
    assert found > 100


def _reachable(start: str, graph: Mapping[str, Sequence[str]]) -> set[str]:
    seen: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += graph[name]
    return seen


def test_conditions_see_states_outputs_and_parsed_json() -> None:
    skipped = Dependency("b", "b", Standing.SKIPPED, "uid-b")
    seen = variables([done("a", out=digest("a")), skipped], {digest("a"): {"ok": True}}, {"p": "1"})
    output = {"digest": digest("a"), "size": 3, "mediaType": "application/json", "json": {"ok": True}}
    assert seen == {
        "steps": {"a": {"state": "completed", "outputs": {"out": output}}, "b": {"state": "skipped", "outputs": {}}},
        "parameters": {"p": "1"},
    }


def test_steps_of_one_name_go_by_their_tasks() -> None:
    both = [Dependency(f"{node}-build", "build", Standing.OPEN) for node in ("x", "y")]
    other = Dependency("x-test", "test", Standing.OPEN)
    assert [item.step for item in distinct_steps([*both, other])] == ["x-build", "y-build", "test"]


def _input(**spec: object) -> Input:
    return Input.model_validate({"name": "i", **spec})


def test_skipped_steps_and_false_conditions_bring_nothing() -> None:
    item = _input(
        merge="Concat",
        sources=[
            {"task": "a", "output": "out"},
            {"task": "a", "output": "out", "when": "false"},
            {"task": "b", "output": "out"},
            {"task": "c", "output": "out", "when": "true"},
        ],
    )
    steps = {
        "a": done("a", out=digest("a")),
        "b": Dependency("b", "b", Standing.SKIPPED),
        "c": done("c", out=digest("c")),
    }
    edges = bringing(item, steps, {"false": False, "true": True})
    assert [edge.task for edge in edges] == ["a", "c"]


def test_the_last_edge_that_brings_something_wins_and_alone_is_recorded() -> None:
    item = _input(sources=[{"task": "a", "output": "out"}, {"task": "c", "output": "out", "path": "/x"}])
    steps = {"a": done("a", out=digest("a")), "c": done("c", out=digest("c"))}
    made = compose(item, item.edges, steps, {digest("c"): b'{"x":"deep"}'})
    assert made.octets == b"deep"
    assert [edge.data() for edge in made.edges] == [
        {"taskUid": "uid-c", "step": "c", "output": "out", "digest": digest("c"), "path": "/x"}
    ]


def test_an_output_its_task_was_accepted_without_is_named() -> None:
    item = _input(**{"from": {"task": "a", "output": "other"}})
    said = output_missing(item, item.edges, {"a": done("a", out=digest("a"))})
    assert said is not None
    assert "output other of Task a, which was accepted with: out" in said


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ({"from": {"task": "a", "output": "o"}}, True),
        ({"from": {"task": "a", "output": "o", "path": "/x"}}, False),
        ({"from": {"task": "a", "output": "o", "path": ""}}, False),
        ({"sources": [{"task": "a", "output": "o"}]}, False),
    ],
)
def test_only_one_whole_output_is_used_as_it_is(spec: dict[str, object], plain: bool) -> None:
    assert is_plain(_input(**spec)) is plain
