"""The laws of the lattice: authority only narrows, and `meet` is the greatest grant within both."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triplane.api.authority import Authority, Axis, Budget, Grant
from triplane.domain.authority import (
    BUILT_IN,
    Resolved,
    chain,
    digest_of,
    expired,
    explicit,
    holds,
    is_within,
    meet,
    normal,
    resolve,
    too_deep,
    widening,
)

NAME = st.sampled_from(["a", "b", "a/x", "a/y", "b/x", "a*", "*b", "*", "a/*", "*/x", "a*/x", "*a*", "**"])
HOST = st.sampled_from(
    ["*", "a.example", "b.example:8443", "*.example", "*.a.example", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9",
     "10.1.2.3", "192.0.2.1", "8.8.8.0/24", "8.8.8.8", "[2606:4700::]/32", "::1", "*:8443"]
)  # fmt: skip
PATH = st.sampled_from(["**", "**:rw", "data", "data/**", "data/a:rw", "data/*", "d*/a", "*/a:rw", "other"])
TIMES = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00", "2027-05-05T05:05:05.5Z"])
AMOUNT = st.one_of(st.none(), st.integers(0, 5))


def lists(pattern: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(pattern, max_size=4)


WHOLE = st.builds(
    Grant,
    tools=lists(NAME),
    capabilities=lists(NAME),
    harnesses=lists(NAME),
    models=lists(NAME),
    egress=lists(HOST),
    secrets=lists(NAME),
    paths=lists(PATH),
    budget=st.builds(Budget, tokens=AMOUNT, cost_minor_units=AMOUNT, wall_clock_seconds=AMOUNT, sessions=AMOUNT),
    delegation_depth=st.integers(0, 4),
    expires_at=TIMES,
).map(normal)
MAYBE = st.one_of(st.none(), WHOLE)
SOME = st.builds(
    Grant,
    tools=st.one_of(st.none(), lists(NAME)),
    egress=st.one_of(st.none(), lists(HOST)),
    paths=st.one_of(st.none(), lists(PATH)),
    budget=st.one_of(st.none(), st.builds(Budget, tokens=AMOUNT)),
    delegation_depth=st.one_of(st.none(), st.integers(0, 8)),
    expires_at=TIMES,
)
AUTHORITY = st.builds(Authority, may_use=st.one_of(st.none(), SOME), may_delegate=st.one_of(st.none(), SOME))
RESOLVED = st.builds(lambda use, delegate: Resolved(meet(use, delegate), delegate), WHOLE, WHOLE)


def within(inner: Grant, outer: Grant) -> bool:
    return not holds(outer, inner)


@given(WHOLE, WHOLE)
def test_meet_does_not_depend_on_the_order(one: Grant, other: Grant) -> None:
    assert meet(one, other) == meet(other, one)


@given(WHOLE, WHOLE, WHOLE)
def test_meet_does_not_depend_on_the_grouping(a: Grant, b: Grant, c: Grant) -> None:
    assert meet(meet(a, b), c) == meet(a, meet(b, c))


@given(WHOLE)
def test_meet_with_itself_is_itself(one: Grant) -> None:
    assert meet(one, one) == one
    assert normal(normal(one)) == normal(one)


@given(WHOLE, WHOLE)
def test_a_meet_is_within_both(one: Grant, other: Grant) -> None:
    assert within(meet(one, other), one)
    assert within(meet(one, other), other)


@given(WHOLE, WHOLE, WHOLE)
def test_whatever_is_within_both_is_within_their_meet(one: Grant, other: Grant, third: Grant) -> None:
    lower = meet(meet(third, one), other)  # something within both, that was not made as their meet
    assert within(lower, meet(one, other))


@given(WHOLE, WHOLE)
def test_one_is_within_the_other_exactly_if_it_is_their_meet(one: Grant, other: Grant) -> None:
    assert within(one, other) == (meet(one, other) == one)


@given(WHOLE, WHOLE, WHOLE)
def test_within_is_reflexive_transitive_and_antisymmetric(a: Grant, b: Grant, c: Grant) -> None:
    assert within(a, a)
    inner = meet(a, b)
    innermost = meet(inner, c)
    assert within(innermost, a)
    if within(a, b) and within(b, a):
        assert a == b


@given(RESOLVED, AUTHORITY)
def test_resolving_never_widens(parent: Resolved, authority: Authority) -> None:
    found = resolve(parent, authority)
    assert within(found.may_delegate, parent.may_delegate)
    assert within(found.may_use, found.may_delegate)


@given(RESOLVED, AUTHORITY)
def test_what_is_declared_within_its_limits_is_had_as_declared(parent: Resolved, authority: Authority) -> None:
    if widening(parent, authority):
        return
    found = resolve(parent, authority)
    for declared, had in ((authority.may_delegate, found.may_delegate), (authority.may_use, found.may_use)):
        if declared is None:
            continue
        for axis in explicit(declared) & {Axis.TOOLS, Axis.EGRESS, Axis.PATHS}:
            assert getattr(had, axis.value) == getattr(normal(declared), axis.value)


@given(RESOLVED, st.lists(AUTHORITY, max_size=4))
def test_a_chain_narrows_link_by_link(ceiling: Resolved, links: list[Authority]) -> None:
    above = ceiling
    for link in chain(ceiling, links):
        assert within(link.may_delegate, above.may_delegate)
        above = link


@given(RESOLVED, RESOLVED, AUTHORITY)
@settings(max_examples=60)
def test_narrowing_a_parent_never_gives_a_child_more(parent: Resolved, other: Resolved, authority: Authority) -> None:
    narrowed = Resolved(meet(parent.may_use, other.may_use), meet(parent.may_delegate, other.may_delegate))
    before, after = resolve(parent, authority), resolve(narrowed, authority)
    assert within(after.may_delegate, before.may_delegate)


def test_the_built_in_ceiling_lets_nothing_out_and_hands_on_public_hosts() -> None:
    assert BUILT_IN.may_use.egress == []
    assert BUILT_IN.may_use.secrets == []
    assert BUILT_IN.may_use.paths == []
    egress = Grant(egress=["example.org", "8.8.8.8"])
    assert is_within(egress, BUILT_IN.may_delegate) == ()
    beyond = is_within(Grant(egress=["169.254.169.254", "10.0.0.1", "localhost:80"]), BUILT_IN.may_delegate)
    assert [each.value for each in beyond] == ["169.254.169.254", "10.0.0.1", "localhost:80"]
    assert within(BUILT_IN.may_use, BUILT_IN.may_delegate)


def test_an_excess_names_axis_value_and_limit() -> None:
    (found,) = is_within(Grant(budget=Budget(tokens=11)), Grant(budget=Budget(tokens=10)))
    assert (found.axis, found.value, found.limit) == (Axis.TOKENS, "11", "10")
    assert str(found) == "budget.tokens 11 is beyond 10"
    (tools,) = is_within(Grant(tools=["shell/*"]), Grant(tools=[]))
    assert tools.limit == "nothing"


def test_an_absent_axis_is_inherited_and_an_empty_list_is_nothing() -> None:
    parent = Resolved(normal(Grant(**{**BUILT_IN.may_use.model_dump(), "tools": ["a/*"]})), BUILT_IN.may_delegate)
    assert resolve(parent, None).may_use.tools == ["a/*"]
    assert resolve(parent, Authority(may_use=Grant())).may_use.tools == ["a/*"]
    assert resolve(parent, Authority(may_use=Grant(tools=[]))).may_use.tools == []


def test_what_is_not_handed_on_any_more_is_not_used_any_more() -> None:
    found = resolve(BUILT_IN, Authority(may_delegate=Grant(tools=["a/*"])))
    assert found.may_use.tools == ["a/*"]


def test_each_level_has_one_less_to_follow_and_none_follows_the_last() -> None:
    links = chain(BUILT_IN, [Authority(may_delegate=Grant(delegation_depth=1)), None, None])
    assert [link.may_delegate.delegation_depth for link in links] == [1, 0, 0]
    assert too_deep(links[0]) is None
    assert too_deep(links[1]) is not None


@pytest.mark.parametrize(
    ("text", "over"),
    [
        pytest.param("2026-01-01T00:00:00Z", True, id="the moment itself is over"),
        pytest.param("2026-01-01T00:00:01Z", False, id="a second later is not"),
        pytest.param("2026-01-01T01:00:00+02:00", True, id="another zone is the same time"),
        pytest.param("2026-01-01t00:00:01z", False, id="small letters"),
        pytest.param("tomorrow", True, id="what is no time grants nothing"),
        pytest.param(None, False, id="no end"),
    ],
)
def test_a_grant_ends(text: str | None, over: bool) -> None:
    assert expired(Grant(expires_at=text), datetime(2026, 1, 1, tzinfo=UTC)) is over


def test_equal_grants_have_one_digest() -> None:
    one = normal(Grant(tools=["b", "a", "a"], expires_at="2026-01-01T02:00:00+02:00"))
    other = normal(Grant(tools=["a", "b"], expires_at="2026-01-01T00:00:00Z"))
    assert digest_of(one) == digest_of(other)
