"""Finished work costs nothing, and nothing unfinished is taken for finished."""

from typing import Any

import pytest
from tests.unit.operator.objects import conditions, make

from triplane.api.text import REQUESTED_AT
from triplane.operator.index import Index
from triplane.operator.settled import settled


def done(kind: str = "Task", name: str = "t", *, generation: int = 1, **parts: Any) -> dict[str, Any]:
    status = {**conditions(Succeeded="True"), "observedGeneration": generation, **parts.pop("more", {})}
    return make(kind, name, generation=parts.pop("at", generation), status=status, spec=parts.pop("spec", {}), **parts)


CASES = [
    pytest.param(done(), True, id="a finished Task is settled"),
    pytest.param(done("AgentSession"), True, id="a finished session is settled"),
    pytest.param(make("Task", "t", status={}), False, id="a Task without status is not"),
    pytest.param(make("Task", "t", status=conditions(Succeeded="Unknown")), False, id="a running Task is not"),
    pytest.param(make("Graph", "g", status=conditions(Ready="True")), False, id="a Graph never is"),
    pytest.param(done(at=2), False, id="a Task edited since is not"),
    pytest.param(done(annotations={REQUESTED_AT: "now"}), False, id="a Task somebody asks about is not"),
    pytest.param(
        done(annotations={REQUESTED_AT: "now"}, more={"requestedAt": "now"}), True, id="a Task that answered is"
    ),
    pytest.param(done(spec={"ttlSecondsAfterFinished": 60}), False, id="a Task that will be deleted is not, at start"),
    pytest.param(
        {**done(), "status": {**conditions(Succeeded="False", Stalled="True"), "observedGeneration": 1}},
        False,
        id="a stalled Task may heal",
    ),
]


@pytest.mark.parametrize(("obj", "expected"), CASES)
def test_what_is_settled(obj: dict[str, Any], expected: bool) -> None:
    assert settled(Index(), obj, lambda _: True, starting=True) is expected


def test_what_the_stores_may_not_hold_is_looked_at() -> None:
    assert not settled(Index(), done(), lambda _: False, starting=True)


def test_a_deletion_is_scheduled_once_not_in_every_resync() -> None:
    assert settled(Index(), done(spec={"ttlSecondsAfterFinished": 60}), lambda _: True, starting=False)


def test_a_review_is_settled_with_its_task() -> None:
    index = Index()
    review = make("Review", "r", spec={"taskRef": {"name": "t", "uid": "uid-Task-t"}})
    assert settled(index, review, lambda _: True, starting=True), "of a Task that is gone"
    index.put(make("Task", "t", rv=1, status={}))
    assert not settled(index, review, lambda _: True, starting=True)
    index.put({**done(), "metadata": {**done()["metadata"], "resourceVersion": "2"}})
    assert settled(index, review, lambda _: True, starting=True)


def test_a_session_that_ended_is_settled_with_its_task() -> None:
    """Until then it may have been given another run, of which its status says nothing yet."""
    index = Index()
    session = done("AgentSession", "s", spec={"taskRef": {"name": "t", "uid": "uid-Task-t"}})
    index.put(make("Task", "t", rv=1, status={}))
    assert not settled(index, session, lambda _: True, starting=True)
    index.put({**done(), "metadata": {**done()["metadata"], "resourceVersion": "2"}})
    assert settled(index, session, lambda _: True, starting=True)
