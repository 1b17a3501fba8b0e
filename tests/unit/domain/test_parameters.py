"""What a Node may set of a Workflow, and where it is put in."""

import pytest

from triplane.api.workflow import Parameter, ParameterType
from triplane.domain.parameters import declaration_problems, named_in, put_into, settle


def declared(type_: str, **fields: object) -> Parameter:
    return Parameter.model_validate({"name": "p", "type": type_, **fields})


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("Text", ["", "anything at all"], []),
        ("Integer", ["0", "-7", "+7", "9223372036854775807"], ["", "1.0", "0x1", "9223372036854775808", "\u0661"]),
        ("Decimal", ["0", "-1.5", ".5", "1e3", "1."], ["", "nan", "inf", "1e999", ".", "1,5"]),
        ("Boolean", ["true", "false"], ["", "True", "yes", "1"]),
        ("Json", ["{}", "[1]", '"x"', "null"], ["", "{", "nan", "[" * 4000]),
        ("Select", ["red"], ["", "blue"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "values",
)
def test_a_value_is_of_its_type(type_: str, good: list[str], bad: list[str]) -> None:
    item = declared(type_, **({"options": ["red"]} if type_ == "Select" else {}))
    assert [settle([item], {"p": value}).problems for value in good] == [()] * len(good)
    for value in bad:
        ((reason, message),) = settle([item], {"p": value}).problems
        assert (reason, "p is '" in message) == ("ParameterInvalid", True), value


def test_every_type_is_checked() -> None:
    assert {item.value for item in ParameterType} == {"Text", "Integer", "Decimal", "Boolean", "Json", "Select"}


def test_the_node_s_value_goes_before_the_default_and_a_missing_one_is_named() -> None:
    item = declared("Text", default="d")
    assert settle([item], {}).values == {"p": "d"}
    assert settle([item], {"p": "n"}).values == {"p": "n"}
    ((reason, message),) = settle([declared("Text")], {}).problems
    assert (reason, "parameter p" in message) == ("ParameterMissing", True)
    ((reason, message),) = settle([item], {"q": "1"}).problems
    assert (reason, "no parameter q; it has p" in message) == ("ParameterUnknown", True)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(declared("Select"), id="a select without options"),
        pytest.param(declared("Text", options=["a"]), id="options of another type"),
        pytest.param(declared("Integer", default="x"), id="a default of another type"),
        pytest.param(declared("Select", options=["a"], default="b"), id="a default that is no option"),
    ],
)
def test_a_declaration_that_cannot_be_met_is_refused(item: Parameter) -> None:
    assert [reason for reason, _ in declaration_problems([item])] == ["ParameterInvalid"]


def test_values_are_put_in_once_and_only_for_names() -> None:
    values = {"a": "[[b]]", "b": "2", "1": "x"}
    assert put_into("[[a]] [[b]] [[c]] [[A]] [[ a ]] [[-a]] [[1]] [b]", values) == (
        "[[b]] 2 [[c]] [[A]] [[ a ]] [[-a]] x [b]"
    )
    assert named_in("[[a]] [[b]] [[a]] [[no_name]]") == ("a", "b")
