"""Which Guidelines a session gets, and in which order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.guideline import Guideline
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.audit.digest import digest_of_bytes
from triplane.domain.guideline import MAX_GUIDELINES, MAX_OCTETS, Known, Recipient, select

RUN = Recipient("team", "g", "writer", ("write",), {"env": "prod"})


def known(name: str = "style", namespace: str = "team", principal: str | None = "p-carol", **spec: Any) -> Known:
    guideline = Guideline.model_validate(
        {
            "apiVersion": "triplane.dev/v1alpha1",
            "kind": "Guideline",
            "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "generation": 3},
            "spec": {"text": f"Text of {name}", **spec},
        }
    )
    return Known(guideline, principal)


def names(*items: Known, run: Recipient = RUN, **more: Any) -> list[str]:
    return [item.name for item in select(items, run, **more).guidelines]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param(known(), True, id="without a scope it is for its namespace"),
        pytest.param(known(namespace="other"), False, id="another namespace's is not for this one"),
        pytest.param(known(namespace=SYSTEM_NAMESPACE), True, id="the installation's is for all"),
        pytest.param(
            known(namespace=SYSTEM_NAMESPACE, scope={"namespaces": ["te*"]}), True, id="a namespace by a pattern"
        ),
        pytest.param(
            known(namespace=SYSTEM_NAMESPACE, scope={"namespaces": ["prod"]}), False, id="for another namespace"
        ),
        pytest.param(known(scope={"namespaces": []}), False, id="an empty list is none at all"),
        pytest.param(known(scope={"graphs": ["g", "h"]}), True, id="its Graph"),
        pytest.param(known(scope={"graphs": ["h"]}), False, id="another Graph"),
        pytest.param(known(scope={"agents": ["writer"]}), True, id="its Agent"),
        pytest.param(known(scope={"agents": ["judge"]}), False, id="another Agent"),
        pytest.param(known(scope={"capabilities": ["write", "read"]}), True, id="a capability it exercises"),
        pytest.param(known(scope={"capabilities": ["review"]}), False, id="one for reviewers"),
        pytest.param(known(scope={"selector": {"matchLabels": {"env": "prod"}}}), True, id="labels of the Task"),
        pytest.param(known(scope={"selector": {"matchLabels": {"env": "dev"}}}), False, id="other labels"),
        pytest.param(known(scope={"graphs": ["g"], "agents": ["judge"]}), False, id="all parts of a scope must hold"),
    ],
)
def test_a_scope_selects(item: Known, expected: bool) -> None:
    assert bool(names(item)) is expected


def test_the_order_is_priority_then_the_installation_s_then_the_name() -> None:
    items = [
        known("b"),
        known("a"),
        known("z", SYSTEM_NAMESPACE),
        known("first", priority=10),
        known("last", SYSTEM_NAMESPACE, priority=-1),
    ]
    assert names(*items) == ["first", "z", "a", "b", "last"]


@given(st.data())
def test_the_order_in_which_they_are_found_does_not_matter(data: st.DataObject) -> None:
    drawn = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"), st.sampled_from(["team", SYSTEM_NAMESPACE, "other"]), st.integers(-3, 3)
            ),
            unique_by=lambda each: each[:2],
            max_size=12,
        )
    )
    items = [known(name, namespace, priority=priority) for name, namespace, priority in drawn]
    shuffled = data.draw(st.permutations(items))
    once, again = select(items, RUN), select(shuffled, RUN)
    assert once == again
    order = [(-item.priority, item.namespace != SYSTEM_NAMESPACE, item.name) for item in once.guidelines]
    assert order == sorted(order)
    assert len(order) == sum(namespace != "other" for _, namespace, _ in drawn)


def test_what_is_pinned_is_the_digest_of_the_text_that_is_given() -> None:
    (pinned,) = select([known(text="Write plainly — always")], RUN).guidelines
    assert pinned.digest == digest_of_bytes("Write plainly — always".encode())
    assert pinned.wire() == {
        "name": "style",
        "namespace": "team",
        "priority": 0,
        "digest": pinned.digest,
        "text": "Write plainly — always",
    }
    assert (pinned.uid, pinned.generation) == ("uid-team-style", 3)


def test_a_reviewer_is_not_instructed_by_the_producing_side() -> None:
    judge = Recipient("team", "g", "judge", ("review",))
    items = [
        known("of-the-producer", principal="p-alice"),
        known("of-another", principal="p-carol"),
        known("of-nobody-known", principal=None),
        known("of-the-installation", SYSTEM_NAMESPACE, principal="p-alice"),
    ]
    assert names(*items, run=judge, distrusted=["p-alice", "p-dave"]) == ["of-the-installation", "of-another"]
    assert len(names(*items, run=judge)) == 4, "without a producing side nobody is distrusted"


@pytest.mark.parametrize(
    ("items", "fits"),
    [
        pytest.param([known("one", text="x" * 32768)], True, id="the largest text"),
        pytest.param([known(f"n-{n}", text="x" * 32768) for n in range(4)], True, id="just as much as may be"),
        pytest.param(
            [*(known(f"n-{n}", text="x" * 32768) for n in range(4)), known("more", text="x")], False, id="too much text"
        ),
        pytest.param([known(f"n-{n}", text="é" * 32768) for n in range(3)], False, id="octets count, not characters"),
        pytest.param([known(f"n-{n:02}", text="x") for n in range(MAX_GUIDELINES + 1)], False, id="too many"),
    ],
)
def test_more_than_a_session_may_be_given_is_told_by_name(items: list[Known], fits: bool) -> None:
    problem = select(items, RUN).problem
    if fits:
        assert problem is None
        return
    assert problem is not None
    reason, message = problem
    assert reason == "GuidelinesTooLarge"
    assert str(MAX_OCTETS) in message
    assert "team/n-" in message
