"""What the admission webhook says of one object, without a server."""

from typing import Any

import pytest

from triplane.api.task import TaskSpec
from triplane.api.work import MAX_DEPENDENCIES
from triplane.domain.admission import (
    MAX_SCHEMA_NODES,
    MAX_SHOWN,
    MAX_SPEC,
    Violation,
    conditions,
    dependencies,
    patterns,
    refusal,
    size_violations,
    task_violations,
)


def spec(**fields: Any) -> TaskSpec:
    wire = {"graphRef": {"name": "g"}, "objective": "x", "agentRef": {"name": "a"}, **fields}
    return TaskSpec.model_validate(wire)


def sources(*edges: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [{"name": "i", "sources": [{"output": "o", **edge} for edge in edges], **fields}]


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        pytest.param({"dependsOn": ["b", "t"]}, "spec.dependsOn[1]", "t → t", id="it depends on itself"),
        pytest.param(
            {"inputs": sources({"task": "b"}, {"task": "t"})}, "spec.inputs[i].sources[1].task", "t → t",
            id="an edge from itself",
        ),
        pytest.param(
            {"inputs": sources({"task": "b"}, {"task": "b"}, {"task": "b"})}, "spec.inputs[i].sources", "3 times",
            id="an edge three times",
        ),
        pytest.param({"inputs": sources({"step": "b"})}, "spec.inputs[i].sources[0].task", "is missing", id="a step"),
        pytest.param(
            {"inputs": sources({"step": "b", "task": "c"})}, "spec.inputs[i].sources[0].step", "leave `step: b` out",
            id="a step and a task",
        ),
        pytest.param(
            {"inputs": sources({"task": "b", "to": "/x"})}, "spec.inputs[i].sources[0].to", "JsonObject",
            id="a place in what is no object",
        ),
        pytest.param(
            {
                "dependsOn": [f"d{n}" for n in range(MAX_DEPENDENCIES)],
                "inputs": sources({"task": "b"}),
            },
            "spec.dependsOn", f"depends on {MAX_DEPENDENCIES + 1} Tasks", id="fan-in",
        ),
        pytest.param(
            {"review": {"people": ["alice", "\u0430lice"]}}, "spec.review.people", "alice and \\u0430lice",
            id="two reviewers of one name",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_field(fields: dict[str, Any], field: str, said: str) -> None:
    (found,) = task_violations("t", spec(**fields))
    assert found.field == field
    assert said in found.message


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing but the work"),
        pytest.param({"dependsOn": ["b"], "inputs": sources({"task": "b"})}, id="order and content from one Task"),
        pytest.param({"inputs": sources({"task": "b", "path": "/x"}, {"task": "b", "path": "/y"})}, id="two values"),
        pytest.param(
            {"inputs": sources({"task": "b", "to": "/x"}, {"task": "b", "to": "/y"}, merge="JsonObject")},
            id="two places",
        ),
    ],
)
def test_what_is_right_passes(fields: dict[str, Any]) -> None:
    assert task_violations("t", spec(**fields)) == ()


def test_a_schema_is_searched_to_a_limit() -> None:
    schema: dict[str, Any] = {"anyOf": [{"type": "null"}] * (MAX_SCHEMA_NODES + 1)}
    outputs = [{"name": "o", "path": "o.json", "mediaType": "application/json", "schema": schema}]
    (found,) = task_violations("t", spec(outputs=outputs))
    assert str(MAX_SCHEMA_NODES) in found.message


def test_dependencies_are_named_once_and_never_itself() -> None:
    assert dependencies("t", spec(dependsOn=["b", "t"], inputs=sources({"task": "a"}, {"task": "b"}))) == ("a", "b")


def test_every_condition_is_found_with_its_field() -> None:
    inputs = [{"name": "f", "from": {"task": "b", "output": "o", "when": "1"}}, *sources({"task": "c", "when": "2"})]
    found = dict(conditions("spec", spec(when="3", inputs=inputs)))
    assert found == {"spec.when": "3", "spec.inputs[f].from.when": "1", "spec.inputs[i].sources[0].when": "2"}


@pytest.mark.parametrize(
    ("condition", "asked"),
    [
        pytest.param("x.matches('a+')", ["''.matches('a+')"], id="single quotes"),
        pytest.param('x.matches( r"\\d" ) || y.matches("b")', ["''.matches(r\"\\d\")", "''.matches(\"b\")"], id="two"),
        pytest.param(r"x.matches('it\'s')", [r"''.matches('it\'s')"], id="an escaped quote"),
        pytest.param("x.matches(y)", [], id="a variable"),
        pytest.param("true", [], id="none"),
    ],
)
def test_regular_expressions_are_found(condition: str, asked: list[str]) -> None:
    assert list(patterns(condition)) == asked


def test_the_size_is_capped() -> None:
    assert list(size_violations(MAX_SPEC)) == []
    (found,) = size_violations(MAX_SPEC + 1)
    assert str(MAX_SPEC) in found.message


def test_a_refusal_lists_at_most_so_many() -> None:
    status = refusal("Task", "t", [Violation(f"f{n}", "m") for n in range(MAX_SHOWN + 3)])
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"].endswith("f19: m; and 3 more")
    assert len(status["details"]["causes"]) == MAX_SHOWN + 1
