"""Rendering the definitions: structural, described, deterministic, and small enough by construction."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
from pydantic import Field

from triplane.api.crd import render, render_all, structural
from triplane.api.kinds import KINDS
from triplane.api.meta import Model

SPEC_CAP = 256 * 1024
CAPPED_BY_THE_WEBHOOK = {"Workflow", "Node", "Task", "Graph", "Capability", "Policy", "Tool"}
"""Their lists may be long or their texts, not both: the whole spec is measured (docs/reference/admission.md)."""
FREE_FORM = "x-kubernetes-preserve-unknown-fields"


def openapi(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = render(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_schema_is_structural_and_every_field_described(kind: str) -> None:
    allowed = {"apiVersion", "kind", "metadata"}
    for path, node in walk(openapi(kind)):
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const"} & {*node}, path
        if path.removeprefix(".") not in allowed and not path.endswith(("[]", "{}")):
            assert node.get("description"), f"{kind}{path} has no description"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_users_write_is_bounded(kind: str) -> None:
    """No list without maxItems, no text without maxLength: CEL's cost estimate and etcd both need it."""
    for path, node in walk(openapi(kind)["properties"]["spec"], "spec"):
        if node["type"] == "array":
            assert "maxItems" in node, f"{kind} {path}"
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, f"{kind} {path}"
        if node.get(FREE_FORM) or "additionalProperties" in node:
            assert "maxProperties" in node, f"{kind} {path}"


def ascii_octets(node: Mapping[str, Any]) -> int:
    """The longest JSON of a node whose text is ASCII; what is free-form counts as nothing."""
    if node["type"] == "object":
        return 2 + sum(len(name) + 4 + ascii_octets(child) for name, child in node.get("properties", {}).items())
    if node["type"] == "array":
        return 2 + int(node["maxItems"]) * (1 + ascii_octets(node["items"]))
    if "enum" in node:
        return 2 + max(len(value) for value in node["enum"])
    return 2 + int(node["maxLength"]) if node["type"] == "string" else 20


@pytest.mark.parametrize("kind", sorted(set(KINDS) - CAPPED_BY_THE_WEBHOOK))
def test_the_caps_of_a_spec_add_up_to_less_than_the_cap(kind: str) -> None:
    assert ascii_octets(openapi(kind)["properties"]["spec"]) <= SPEC_CAP


def test_what_a_schema_cannot_cap_is_known_and_listed_in_the_docs() -> None:
    free = {
        f"{kind}.{path}"
        for kind in KINDS
        for path, node in walk(openapi(kind)["properties"]["spec"], "spec")
        if node.get(FREE_FORM)
    }
    assert free == {
        "Node.spec.steps[].outputs[].schema",
        "Workflow.spec.steps[].outputs[].schema",
        "Task.spec.outputs[].schema",
        "Capability.spec.inputs[].schema",
        "Capability.spec.outputs[].schema",
        "Capability.spec.versions[].inputs[].schema",
        "Capability.spec.versions[].outputs[].schema",
        "Policy.spec.params",
        "Tool.spec.exec.inputSchema",
    }


def test_short_names_and_plurals_are_unique() -> None:
    names = [each["spec"]["names"] for each in render_all()]
    short = [name for each in names for name in each["shortNames"]]
    assert len(set(short)) == len(short) == len(KINDS)
    assert all(2 <= len(name) <= 4 for name in short)
    assert len({each["plural"] for each in names}) == len(KINDS)


def test_optional_fields_lose_their_null_and_keep_their_limits() -> None:
    class Sample(Model):
        """A sample."""

        name: Annotated[str | None, Field(max_length=3, description="Name.")] = None
        ids: Annotated[list[int] | None, Field(max_length=2, description="Ids.")] = None
        on: Annotated[bool, Field(description="On.")] = True

    assert structural(Sample) == {
        "type": "object",
        "description": "A sample.",
        "properties": {
            "name": {"type": "string", "description": "Name.", "maxLength": 3},
            "ids": {
                "type": "array",
                "description": "Ids.",
                "maxItems": 2,
                "items": {"type": "integer", "format": "int64"},
            },
            "on": {"type": "boolean", "description": "On.", "default": True},
        },
    }


class Recursive(Model):
    """Contains itself."""

    inner: Annotated["Recursive | None", Field(description="Inner.")] = None


class Union(Model):
    """Two types."""

    value: Annotated[int | str, Field(description="Value.")]


class OpenMap(Model):
    """Any keys, and anything behind them."""

    values: Annotated[dict[str, Any], Field(description="Values.")]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        pytest.param(Recursive, "recursive", id="a model within itself"),
        pytest.param(Union, "unions", id="a union of two types"),
        pytest.param(OpenMap, "preserve unknown fields", id="a map of anything"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[Model], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        structural(model)
