"""Who may hand in a verdict on whose work, as far as admission can tell."""

from collections.abc import Mapping
from typing import Any

import pytest

from triplane.admission.asked import Asked
from triplane.admission.independence import SelfReviewCheck
from triplane.api.policy import Operation
from triplane.api.text import REQUESTER
from triplane.domain.admission import FORBIDDEN


def made(kind: str, by: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": kind.lower(), "uid": "u", "annotations": {REQUESTER: by}}, "spec": spec}


class Store:
    """Alice's Agent runs carol's Harness for bob's Task."""

    def __init__(self, **absent: None) -> None:
        self.objects: dict[str, dict[str, Any] | None] = {
            "Task": made("Task", "bob", review={"people": ["dave"]}, agentRef={"name": "agent"}),
            "Agent": made("Agent", "alice", harnessRef={"name": "harness"}),
            "Harness": made("Harness", "carol"),
            **absent,
        }

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.objects[kind]


def review(by: str, *, uid: str = "u", operation: Operation = Operation.CREATE, **spec: Any) -> Asked:
    obj = made("Review", by, taskRef={"name": "task", "uid": uid}, **spec)
    return Asked("1", operation, "Review", "demo", "review", obj, None, {"username": by}, dry_run=False)


@pytest.mark.parametrize(
    ("by", "controls"),
    [
        pytest.param("alice", "Agent agent", id="the Agents user"),
        pytest.param("carol", "Harness harness", id="the user whose program it runs"),
        pytest.param("bob", None, id="whoever asked for the work"),
        pytest.param("dave", None, id="somebody else"),
    ],
)
async def test_nobody_judges_what_an_agent_of_theirs_made(by: str, controls: str | None) -> None:
    found = (await SelfReviewCheck()(review(by), Store())).violations
    assert bool(found) is (controls is not None)
    for violation in found:
        assert (violation.reason, violation.ask) == (FORBIDDEN, "dave")
        assert f"{by} controls {controls}" in violation.message


@pytest.mark.parametrize("gate", ["Launch", "Tool", "Outputs"])
async def test_leave_is_given_by_others_too(gate: str) -> None:
    assert (await SelfReviewCheck()(review("alice", gate=gate), Store())).violations


@pytest.mark.parametrize(
    ("asked", "store"),
    [
        pytest.param(review("alice", sessionRef={"name": "s", "uid": "s"}), Store(), id="an agents own verdict"),
        pytest.param(review("alice", operation=Operation.UPDATE), Store(), id="an update"),
        pytest.param(review("alice", uid="earlier"), Store(), id="a Task of that name that is gone"),
        pytest.param(review("alice"), Store(Task=None), id="no Task yet"),
        pytest.param(review("alice"), Store(Agent=None), id="no Agent any more"),
        pytest.param(review("carol"), Store(Harness=None), id="no Harness any more"),
    ],
)
async def test_what_cannot_be_told_is_left_to_the_operator(asked: Asked, store: Store) -> None:
    assert not (await SelfReviewCheck()(asked, store)).violations
