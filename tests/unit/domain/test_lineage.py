"""Lineage from what is known, and honest about what is not; the work order of one run."""

from dataclasses import dataclass, field, replace
from typing import Any

from triplane.domain.lineage import LineageFacts, Reviewed, lineage, material_digests
from triplane.domain.runorder import order_of_run, readable_digests
from triplane.domain.session import Offer, Outcome, RunResult, RunState, RunView, SessionView

ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")


@dataclass(frozen=True)
class Kept:
    uid: str
    kind: str
    spec: dict[str, Any] = field(default_factory=dict)
    namespace: str = "team"
    name: str = "thing"
    generation: int = 1
    requester: str | None = "p-1"
    seq: int = 7
    gone: bool = True


ARTIFACT = Kept(
    "r-1",
    "Artifact",
    {
        "name": "report",
        "digest": ONE,
        "run": 2,
        "round": 2,
        "taskRef": {"name": "task", "uid": "t-1"},
        "sessionRef": {"name": "session", "uid": "s-1"},
        "materials": [{"name": "in", "digest": TWO}],
    },
)
OFFER = Offer("s-1", "team", "session", "t-1", "g-1", "a-1", "agent", "Producer", TWO, {"inputs": []})
RUN = RunView(
    2,
    RunState.FINISHED,
    1,
    permit_expired=False,
    runner="local",
    facts={"isolated": True, "materials": [{"role": "program", "name": "p", "digest": THREE, "basis": "content"}]},
    result=RunResult(Outcome.SUCCEEDED, "Completed", "", reflection=THREE),
    run_inputs={"findings": ["the total is wrong"]},
)


def test_without_anything_but_the_artifact_the_rest_is_null_or_as_declared() -> None:
    found = lineage(LineageFacts(ARTIFACT))
    assert found["task"] == {"kind": "Task", "name": "task", "uid": "t-1"}
    assert found["session"] == {"kind": "AgentSession", "name": "session", "uid": "s-1"}
    assert (found["graph"], found["node"], found["run"]) == (None, None, {"run": 2})
    assert found["reviews"] == []
    assert found["asRun"] == []
    assert [item["digest"] for item in found["inputs"]] == [TWO]


def test_the_run_that_produced_it_is_the_one_named_and_not_the_last() -> None:
    later = replace(RUN, run=3, runner="other")
    found = lineage(LineageFacts(ARTIFACT, execution=SessionView(OFFER, (RUN, later))))
    assert (found["run"]["run"], found["run"]["runner"]) == (2, "local")
    assert found["run"]["findings"] == ["the total is wrong"]
    assert found["run"]["reflection"] == THREE


def test_the_as_run_record_tells_frozen_from_measured() -> None:
    session = Kept("s-1", "AgentSession", {"snapshot": [{"role": "agent", "name": "a", "basis": "content"}]})
    found = lineage(LineageFacts(ARTIFACT, session=session, execution=SessionView(OFFER, (RUN,))))
    assert [(item["role"], item["known"]) for item in found["asRun"]] == [("agent", "frozen"), ("program", "measured")]


def test_a_verdict_on_another_digest_is_shown_as_not_bound() -> None:
    def review(digest: str) -> Reviewed:
        spec = {"verdict": "Approve", "subjects": [{"name": "report", "digest": digest}]}
        return Reviewed(Kept("v-1", "Review", spec), None, None, {})

    shown = lineage(LineageFacts(ARTIFACT, reviews=[review(ONE), review(TWO)]))["reviews"]
    assert [item["bound"] for item in shown] == [True, False]
    assert [item["person"] for item in shown] == [True, True]


def test_inputs_are_named_once_whoever_names_them() -> None:
    offer = replace(OFFER, work_order={"inputs": [{"name": "in", "digest": TWO}, {"name": "more", "digest": THREE}]})
    view = SessionView(offer, (RUN,))
    assert list(material_digests(ARTIFACT, view, [("in", TWO)])) == [("in", TWO), ("more", THREE)]


def test_the_work_order_of_a_run_is_the_offer_with_the_run_inputs_over_it() -> None:
    offer = replace(OFFER, work_order={"inputs": [], "findings": ["old"], "session": "forged", "run": 99})
    order = order_of_run(offer, 2, {"findings": ["new"]})
    assert order == {
        "inputs": [],
        "findings": ["new"],
        "session": {"uid": "s-1", "name": "session", "namespace": "team"},
        "run": 2,
    }
    assert order_of_run(OFFER, 1, {})["findings"] == []


def test_a_run_may_read_inputs_subjects_and_program_and_nothing_else() -> None:
    order = {
        "inputs": [{"name": "in", "digest": ONE}],
        "review": {"subjects": [{"name": "report", "digest": TWO}], "contract": [{"name": "x"}]},
        "harness": {"program": "p", "digest": THREE},
        "outputs": [{"name": "report", "digest": "sha256:" + "4" * 64}],
    }
    assert readable_digests(order) == {ONE, TWO, THREE}
    assert readable_digests({"review": None, "harness": {"program": "p"}}) == frozenset()
