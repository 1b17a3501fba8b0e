"""May this call be made?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.authority import Axis
from triplane.api.tool import ToolSpec
from triplane.domain.toolcall import (
    SEPARATOR,
    Allowed,
    Refusal,
    Rule,
    Rules,
    decide,
    demanded_keys,
    offered_name,
    subject_digest,
    within_reach,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def tool(**spec: Any) -> ToolSpec:
    return ToolSpec.model_validate({"builtin": "clock", **spec})


def decided(
    operation: str = "read", *, granted: tuple[str, ...] | None = ("fs/*",), cost_left: int | None = None, **spec: Any
) -> Refusal | Allowed:
    rules = Rules(granted, {"fs": tool(**spec)}, NOW + timedelta(hours=1))
    return decide(rules, "fs", operation, cost_left=cost_left, now=NOW)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, None, id="granted, and nothing said of it: allowed"),
        pytest.param({"granted": ("**",)}, None, id="everything includes it"),
        pytest.param({"granted": ("*/read",)}, None, id="of any Tool"),
        pytest.param({"granted": ()}, Rule.AUTHORITY, id="an empty list grants nothing"),
        pytest.param({"granted": None}, Rule.AUTHORITY, id="an absent axis grants nothing"),
        pytest.param({"granted": ("fs",)}, Rule.AUTHORITY, id="a Tool's name alone is no key"),
        pytest.param({"granted": ("*",)}, Rule.AUTHORITY, id="a star does not cross the slash"),
        pytest.param({"granted": ("fs/rea",)}, Rule.AUTHORITY, id="a prefix is not the name"),
        pytest.param({"allow": ["read"]}, None, id="allowed by name"),
        pytest.param({"allow": ["write"]}, Rule.ALLOW, id="not among the allowed"),
        pytest.param({"allow": []}, Rule.ALLOW, id="an empty allow allows nothing"),
        pytest.param({"allow": ["READ"]}, Rule.ALLOW, id="allow is exact"),
        pytest.param({"deny": ["write"]}, None, id="another one is denied"),
        pytest.param({"deny": ["read"], "allow": ["read"]}, Rule.DENY, id="deny wins over allow"),
        pytest.param({"deny": ["READ"]}, Rule.DENY, id="deny holds in any case"),
        pytest.param({"deny": ["*"], "granted": ("**",)}, Rule.DENY, id="deny wins over authority"),
        pytest.param({"costMinorUnits": 5, "cost_left": 5}, None, id="the last units may be spent"),
        pytest.param({"costMinorUnits": 5, "cost_left": 4}, Rule.BUDGET, id="but no more than are left"),
        pytest.param({"costMinorUnits": 0, "cost_left": 0}, None, id="what is free may always be called"),
    ],
)
def test_rules(facts: dict[str, Any], expected: Rule | None) -> None:
    found = decided(**facts)

    assert (found.rule if isinstance(found, Refusal) else None) == expected


@pytest.mark.parametrize(("minutes", "over"), [(59, False), (60, True), (61, True)])
def test_authority_ends_when_it_says(minutes: int, over: bool) -> None:
    rules = Rules(("**",), {"fs": tool()}, NOW + timedelta(hours=1))
    found = decide(rules, "fs", "read", cost_left=None, now=NOW + timedelta(minutes=minutes))

    assert isinstance(found, Refusal) is over
    if isinstance(found, Refusal):
        assert (found.rule, found.axis) == (Rule.EXPIRED, Axis.EXPIRY)


def test_leave_is_needed_where_the_tool_says_so_in_any_case() -> None:
    spec = {"requiresApproval": ["Read"], "approvers": ["carol"]}

    assert decided(**spec) == Allowed(needs_leave=True)
    assert decided("write", **spec) == Allowed(needs_leave=False)


def test_a_refusal_says_what_and_who() -> None:
    found = decided(granted=("fs/write", "git/*"))

    assert isinstance(found, Refusal)
    assert found.text() == (
        "Refused (AuthorityExceeded) on axis tools: fs/read is not granted. Limit: fs/write, git/*. Who can change it: "
        "whoever may widen mayUse of the Task or its Agent, within what is delegated to them. Repeating the same call "
        "will be refused again."
    )


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("read_file", "fs__read_file"),
        ("a.b-c", "fs__a.b-c"),
        ("a/b", None),
        ("", None),
        ("nämlich", None),
        ("two words", None),
        ("line\n", None),
        ("x" * 124, "fs__" + "x" * 124),
        ("x" * 125, None),
    ],
)
def test_offered_names(operation: str, name: str | None) -> None:
    assert offered_name("fs", operation) == name


@given(
    st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,10}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True),
)
def test_an_offered_name_belongs_to_one_key(tool_: str, operation: str) -> None:
    name = offered_name(tool_, operation)

    assert name is not None
    assert name.partition(SEPARATOR) == (tool_, SEPARATOR, operation)


@pytest.mark.parametrize(
    ("patterns", "reached"),
    [
        (("**",), True),
        (("fs/*",), True),
        (("fs/read_*",), True),
        (("*/read",), True),
        (("f*/x",), True),
        (("fs",), False),
        (("fs/",), False),
        (("git/*",), False),
        (("*",), False),
        ((), False),
        (None, False),
    ],
)
def test_a_tool_is_within_reach_as_soon_as_something_of_it_is(patterns: tuple[str, ...] | None, reached: bool) -> None:
    assert within_reach(patterns, "fs") is reached


def test_naming_a_tool_demands_something_of_it() -> None:
    assert demanded_keys(["fs", "git"]) == ("fs/*", "git/*")


def test_leave_is_bound_to_operation_and_arguments() -> None:
    digest = subject_digest("fs/write", {"path": "a", "text": "b"})

    assert digest == subject_digest("fs/write", {"text": "b", "path": "a"}), "the order of members says nothing"
    others = [
        subject_digest("fs/append", {"path": "a", "text": "b"}),
        subject_digest("fs/write", {"path": "a", "text": "c"}),
        subject_digest("fs/write", {"path": "a", "text": "b", "mode": None}),
    ]
    assert digest not in others
