"""What a Task's status asks of people, and the Review that answers."""

from typing import Any

import pytest

from triplane.api.meta import Gate
from triplane.api.review import Review
from triplane.domain.asking import askings, choose, manifest, remark
from triplane.errors import NotFound

DIGEST, SNAPSHOT = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def task(people: list[str] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Task",
        "metadata": {"name": "audit", "namespace": "demo", "uid": "uid-1"},
        "spec": {"review": {"people": people}} if people else {},
        "status": {"round": 2, **status},
    }


GATED = task(
    state="blocked",
    approval={"gate": "Launch", "subjects": [{"name": "snapshot", "digest": SNAPSHOT}], "people": ["bob"],
              "since": "2026-03-01T12:00:00Z", "until": "2026-03-01T13:00:00Z"},
    conditions=[{"type": "WaitingForApproval", "status": "True", "message": "Waiting for leave by bob"}],
)  # fmt: skip
REVIEWING = task(
    ["bob", "carol"],
    state="reviewing",
    outputs=[{"name": "report", "digest": DIGEST, "artifact": "a"}],
    approvals=["carol"],
    conditions=[{"type": "Reviewed", "status": "Unknown", "message": "Waiting for a Review of round 2 by bob"}],
)


def test_a_gate_tells_who_what_and_until_when() -> None:
    (asking,) = askings(GATED)
    assert (asking.gate, asking.people, asking.until) == (Gate.LAUNCH, ("bob",), "2026-03-01T13:00:00Z")
    assert asking.subjects == (("snapshot", SNAPSHOT),)


def test_a_review_tells_who_is_still_missing() -> None:
    (asking,) = askings(REVIEWING)
    assert (asking.gate, asking.people, asking.approved) == (Gate.OUTPUTS, ("bob",), ("carol",))
    assert asking.document()["subjects"] == [{"name": "report", "digest": DIGEST}]


@pytest.mark.parametrize(
    "quiet",
    [
        pytest.param(task(state="running"), id="at work"),
        pytest.param(task(state="reviewing"), id="reviewed by an agent alone"),
        pytest.param(task(["bob"], state="completed"), id="over"),
        pytest.param({**task(), "status": None}, id="not looked at yet"),
    ],
)
def test_nothing_is_asked(quiet: dict[str, Any]) -> None:
    assert askings(quiet) == ()
    with pytest.raises(NotFound, match="asks people for nothing now"):
        choose(quiet, None, None)


@pytest.mark.parametrize(
    ("gate", "round_"), [pytest.param(Gate.OUTPUTS, None, id="gate"), pytest.param(None, 1, id="round")]
)
def test_another_gate_or_round_is_refused_with_what_waits(gate: Gate | None, round_: int | None) -> None:
    with pytest.raises(NotFound, match="gate Launch of round 2"):
        choose(GATED, gate, round_)


@pytest.mark.parametrize("verdict", ["Approve", "Reject"])
def test_the_review_is_a_valid_one_of_what_was_shown(verdict: str) -> None:
    obj = manifest(GATED, choose(GATED, None, None), verdict, ["why"] if verdict == "Reject" else [])
    assert obj["metadata"] == {"generateName": f"audit-{verdict.lower()}-", "namespace": "demo"}
    review = Review.model_validate({**obj, "metadata": {**obj["metadata"], "name": "made"}})
    assert review.spec.gate is Gate.LAUNCH
    assert review.spec.subjects[0].digest == SNAPSHOT
    assert review.spec.session_ref is None


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param("Waiting. Review r is late: the time was up", "Review r is late: the time was up", id="late"),
        pytest.param("Waiting. Review r: the verdict is on x", "Review r: the verdict is on x", id="digests"),
        pytest.param("Waiting. Review other is late", None, id="another's"),
        pytest.param("The outputs of round 1 were accepted by Review r", None, id="it counted"),
    ],
)
def test_what_is_said_against_a_review_is_found(message: str, said: str | None) -> None:
    obj = task(conditions=[{"type": "Reviewed", "message": message}])
    assert remark(obj, "r") == said
