"""Label selectors as objects declare them (metav1.LabelSelector)."""

from typing import Any

import pytest

from triplane.api.policy import Selector
from triplane.domain.selector import matches, parse_selector


def selector(**fields: Any) -> Selector:
    return Selector.model_validate(fields)


def requirement(operator: str, *values: str, key: str = "env") -> Selector:
    item: dict[str, Any] = {"key": key, "operator": operator}
    return selector(matchExpressions=[item | ({"values": list(values)} if values else {})])


@pytest.mark.parametrize(
    ("chosen", "labels", "expected"),
    [
        pytest.param(None, {}, True, id="an absent one takes everything"),
        pytest.param(selector(), {"a": "b"}, True, id="an empty one takes everything"),
        pytest.param(
            selector(matchLabels={"env": "prod"}), {"env": "prod", "x": "y"}, True, id="a label with its value"
        ),
        pytest.param(selector(matchLabels={"env": "prod"}), {"env": "dev"}, False, id="a label with another value"),
        pytest.param(selector(matchLabels={"env": "prod"}), {}, False, id="a label that is not there"),
        pytest.param(selector(matchLabels={"env": ""}), {"env": ""}, True, id="an empty value is a value"),
        pytest.param(requirement("In", "a", "b"), {"env": "b"}, True, id="one of the values"),
        pytest.param(requirement("In", "a", "b"), {}, False, id="In needs the label"),
        pytest.param(requirement("NotIn", "a"), {"env": "b"}, True, id="none of the values"),
        pytest.param(requirement("NotIn", "a"), {}, True, id="NotIn takes what has no such label"),
        pytest.param(requirement("NotIn", "a"), {"env": "a"}, False, id="a value that is barred"),
        pytest.param(requirement("Exists"), {"env": ""}, True, id="the label is there"),
        pytest.param(requirement("Exists"), {}, False, id="the label is not there"),
        pytest.param(requirement("DoesNotExist"), {}, True, id="the label must not be there, and is not"),
        pytest.param(requirement("DoesNotExist"), {"env": "a"}, False, id="the label must not be there, and is"),
        pytest.param(
            selector(matchLabels={"a": "1"}, matchExpressions=[{"key": "b", "operator": "Exists"}]),
            {"a": "1"},
            False,
            id="all of it must hold",
        ),
    ],
)
def test_a_selector_takes_what_it_says(chosen: Selector | None, labels: dict[str, str], expected: bool) -> None:
    assert matches(chosen, labels) is expected


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("env in (a,b)", requirement("In", "a", "b")),
        ("env notin (a)", requirement("NotIn", "a")),
        ("env", requirement("Exists")),
        ("!env", requirement("DoesNotExist")),
        ("env=a", selector(matchLabels={"env": "a"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "declared",
)
def test_declared_and_written_selectors_mean_the_same(text: str, same: Selector) -> None:
    for labels in ({}, {"env": ""}, {"env": "a"}, {"env": "b"}, {"env": "c"}, {"other": "a"}):
        assert matches(same, labels) is parse_selector(text).matches(labels), labels
