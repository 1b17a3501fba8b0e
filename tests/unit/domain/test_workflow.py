"""Which steps make a graph that can be run, and in which order."""

import graphlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.work import MAX_DEPENDENCIES, MAX_DEPENDENTS, MAX_DEPTH, MAX_STEPS, Step
from triplane.domain.naming import object_name
from triplane.domain.workflow import depth, find_cycle, order, problems, spell, waits_for


def step(name: str, *after: str, **fields: Any) -> Step:
    spec: dict[str, Any] = {"name": name, "objective": "Do it", "agentRef": {"name": "a"}, **fields}
    if after:
        spec["dependsOn"] = list(after)
    return Step.model_validate(spec)


def taking(name: str, *edges: Mapping[str, Any], merge: str | None = None) -> Step:
    item: dict[str, Any] = {"name": "in", "sources": [dict(edge) for edge in edges]}
    if merge:
        item["merge"] = merge
    return step(name, inputs=[item])


def edge(source: str = "a", output: str = "out", **fields: Any) -> dict[str, Any]:
    return {"step": source, "output": output, **fields}


def reasons(*steps: Step, **arguments: Any) -> list[str]:
    return [problem.reason for problem in problems(steps, **arguments)]


A = step("a")


@pytest.mark.parametrize(
    ("steps", "reason", "named"),
    [
        pytest.param([step("a", "b"), step("b", "a")], "DependencyCycle", "a → b → a", id="two wait for each other"),
        pytest.param([step("a", "a")], "DependencyCycle", "a → a", id="one waits for itself"),
        pytest.param(
            [A, step("z", "x"), step("x", "y"), step("y", "z", "a")], "DependencyCycle", "x → y → z → x",
            id="a ring of three begins with its smallest name",
        ),
        pytest.param(
            [step("a", "b"), taking("b", edge("a"))], "DependencyCycle", "a → b → a", id="an edge closes the cycle"
        ),
        pytest.param([step("a", "ghost")], "UnknownStep", "ghost", id="dependsOn names no step"),
        pytest.param([taking("a", edge("ghost"))], "UnknownStep", "ghost", id="an edge names no step"),
        pytest.param([A, step("a")], "DuplicateStep", "a", id="two steps of one name"),
        pytest.param([A, step("b", "a", "a")], "DuplicateEdge", "a twice in dependsOn", id="dependsOn names one twice"),
        pytest.param(
            [A, taking("b", edge(), edge())], "DuplicateEdge", "output out of a", id="the same edge twice"
        ),
        pytest.param(
            [A, taking("b", edge(), edge(to="/a"), merge="JsonObject")], "DuplicateEdge", "same place",
            id="twice to the same place, once by default",
        ),
        pytest.param(
            [A, taking("b", edge(when="true"), edge(when="false"))], "DuplicateEdge", "output out of a",
            id="two conditions on one edge are one condition",
        ),
        pytest.param(
            [A, taking("b", edge(to="/x"), merge="Array")], "EdgeInvalid", "JsonObject", id="a place in an array"
        ),
        pytest.param(
            [A, taking("b", edge(task="t"))], "EdgeInvalid", "exactly one", id="an edge from a step and a task"
        ),
        pytest.param([taking("b", {"output": "o"})], "EdgeInvalid", "exactly one", id="an edge from nowhere"),
        pytest.param(
            [step(f"s{n}") for n in range(MAX_STEPS + 1)], "LimitExceeded", f"at most {MAX_STEPS}", id="too many steps"
        ),
        pytest.param(
            [*(step(f"s{n}") for n in range(MAX_DEPENDENCIES)), A, step("wide", "a", *[f"s{n}" for n in range(63)])],
            None, "", id="as many dependencies as there may be",
        ),
        pytest.param(
            [
                *(step(f"s{n}") for n in range(MAX_DEPENDENCIES)), A,
                taking("wide", edge(), *(edge(f"s{n}") for n in range(MAX_DEPENDENCIES - 1))).model_copy(
                    update={"depends_on": ["s63"]}
                ),
            ],
            "LimitExceeded", "wide depends on 65 steps", id="dependsOn and edges together are too many",
        ),
        pytest.param(
            [A, *(step(f"s{n}", "a") for n in range(MAX_DEPENDENTS + 1))], "LimitExceeded", "depend on step a",
            id="too many depend on one",
        ),
        pytest.param(
            [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, MAX_DEPTH + 1))], "LimitExceeded",
            "from s0 to s64", id="too deep",
        ),
        pytest.param(
            [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, MAX_DEPTH))], None, "", id="as deep as may be"
        ),
        pytest.param(
            [A, taking("b", edge(), edge(path="/x"), edge(output="other"), merge="Array")], None, "",
            id="other outputs and other paths are other edges",
        ),
    ],
)  # fmt: skip
def test_each_problem_is_named_with_its_offender(steps: list[Step], reason: str | None, named: str) -> None:
    found = problems(steps)
    assert [problem.reason for problem in found] == ([reason] if reason else [])
    assert all(named in problem.message for problem in found)


def test_parameters_are_checked_wherever_they_are_put_in() -> None:
    uses = step("a", definitionOfDone="[[x]]", inputs=[{"name": "i", "value": "[[y]] and [[x]]"}])
    assert reasons(uses) == []  # nobody says which there are
    assert reasons(uses, parameters={"x", "y"}) == []
    (problem,) = problems([uses], parameters={"x"})
    assert problem.reason == "ParameterUnknown"
    assert "[[y]]" in problem.message
    assert "[[x]]" not in problem.message


def test_an_edge_from_a_task_of_the_same_node_is_an_edge_from_its_step() -> None:
    steps = [step("a", "b"), taking("b", {"task": "run-a", "output": "o"})]
    assert reasons(*steps) == []
    assert reasons(*steps, node_name="other") == []
    assert reasons(*steps, node_name="run") == ["DependencyCycle"]


def test_steps_that_would_become_one_task_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplane.domain.workflow.object_name", lambda node, name: node)  # a collision of fingerprints
    (problem,) = problems([A, step("b")], node_name="run")
    assert problem.reason == "DuplicateStep"
    assert "a and b" in problem.message


def test_names_that_are_too_long_stay_apart() -> None:
    long = [step(f"{'s' * 60}{n}") for n in range(100)]
    assert problems(long, node_name="n" * 60) == ()
    assert len({object_name("n" * 60, item.name) for item in long}) == 100


def test_among_those_that_may_come_next_the_declared_order_holds() -> None:
    graph = waits_for([step("d", "b", "c"), step("c", "a"), step("b", "a"), step("z"), A])
    assert order(graph) == ("z", "a", "c", "b", "d")
    assert depth(graph) == 3


GRAPHS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=4).map(tuple), max_size=8
)


@given(GRAPHS)
def test_the_order_puts_each_after_all_it_waits_for_and_a_cycle_is_found_where_there_is_one(
    graph: dict[str, tuple[str, ...]],
) -> None:
    inside = {name: tuple(other for other in waits if other in graph) for name, waits in graph.items()}
    cycle = find_cycle(graph)
    try:
        graphlib.TopologicalSorter(inside).prepare()
    except graphlib.CycleError:
        assert cycle is not None
        assert cycle[0] == cycle[-1] == min(cycle)
        assert all(later in graph[earlier] for earlier, later in pairwise(cycle))
        return
    assert cycle is None
    place = {name: number for number, name in enumerate(order(graph))}
    assert place.keys() == graph.keys()
    assert all(place[other] < place[name] for name, waits in inside.items() for other in waits)


def test_a_graph_deeper_than_the_stack_is_judged() -> None:
    chain = {str(n): (str(n + 1),) for n in range(20_000)}
    assert find_cycle(chain) is None
    assert depth(chain) == 20_000
    ring = {**chain, "20000": ("0",)}
    found = find_cycle(ring)
    assert found is not None
    assert len(found) == 20_002
    assert spell(["a", "b", "a"]) == "a → b → a"
