"""Each check of the fault campaign finds what it is for, on evidence doctored to have it, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.faults.invariants import (
    Acknowledged,
    Leftovers,
    LogRow,
    accepted_once,
    acknowledged_once,
    all_succeeded,
    artifacts_once,
    blobs_there,
    explained,
    nothing_left,
    runs_end_once,
    same_digests,
    silent,
)
from tests.faults.plans import FIRST, MOST, plan_of

OUTPUT = "sha256:" + "a" * 64
SEGMENT = "sha256:" + "b" * 64


def _row(seq: int, id_: str, subject: str, blobs: Sequence[str] = (), **data: Any) -> LogRow:
    entry = {"id": id_, "type": id_.partition("/")[0], "subject": {"uid": subject}, "data": data, "blobs": list(blobs)}
    return LogRow(seq, f"{seq} {id_}".encode(), entry)


def _object(kind: str, name: str, spec: Mapping[str, Any] | None = None, **succeeded: Any) -> dict[str, Any]:
    told = {"type": "Succeeded", "status": "True", "reason": "Done", "message": "It is done", "observedGeneration": 1}
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": 1},
        "spec": dict(spec or {}),
        "status": {"conditions": [{**told, **succeeded}]},
    }


def _artifact(name: str = "report", round_: int = 2) -> dict[str, Any]:
    return _object("Artifact", name, {"taskRef": {"uid": "t"}, "round": round_, "name": "report", "digest": OUTPUT})


@dataclass(frozen=True)
class Evidence:
    """All of it, as the checks take it."""

    rows: tuple[LogRow, ...]
    told: Acknowledged
    left: Leftovers
    objects: tuple[dict[str, Any], ...]
    artifacts: tuple[dict[str, Any], ...]
    later: Mapping[str, str]

    def problems(self) -> list[str]:
        """What every check finds."""
        return [
            *acknowledged_once(self.rows, self.told),
            *runs_end_once(self.rows),
            *blobs_there(self.rows, self.left.blobs),
            *accepted_once(self.rows, {"t": 2}),
            *artifacts_once(self.rows, self.artifacts, ["t"]),
            *nothing_left(self.rows, self.left),
            *explained(self.objects),
            *all_succeeded(self.objects),
            *silent({"log": "7", "Task a": "3"}, self.later),
        ]

    def with_row(self, row: LogRow) -> "Evidence":
        return replace(self, rows=(*self.rows, row))

    def without(self, id_: str) -> "Evidence":
        return replace(self, rows=tuple(row for row in self.rows if row.id != id_))


def _sound() -> Evidence:
    rows = (
        _row(0, "run.claimed/s/1", "s", run=1),
        _row(1, "run.recorded/s/1/1", "s", (SEGMENT,), run=1),
        _row(2, "run.finished/s/1", "s", run=1),
        _row(3, "task.rejected/t/1", "t", round=1),
        _row(4, "artifact.recorded/s/1/report", "uid-report", (OUTPUT,), round=2),
        _row(5, "task.accepted/t/2", "t", round=2, subjects=[{"name": "report", "digest": OUTPUT}]),
    )
    return Evidence(
        rows=rows,
        told=Acknowledged(frozenset({"run.finished/s/1"}), frozenset({"x/1"}), {0: rows[0].octets}),
        left=Leftovers(blobs=frozenset({OUTPUT, SEGMENT})),
        objects=(_object("Task", "a"), _object("Node", "n")),
        artifacts=(_artifact(),),
        later={"log": "7", "Task a": "3"},
    )


def test_sound_evidence_has_no_problem() -> None:
    assert _sound().problems() == []


def _left(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda sound: replace(sound, left=replace(sound.left, **changes))


def _objects(obj: dict[str, Any]) -> Callable[[Evidence], Evidence]:
    return lambda sound: replace(sound, objects=(obj,))


def _told(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda sound: replace(sound, told=replace(sound.told, **changes))


@pytest.mark.parametrize(
    ("doctor", "says"),
    [
        pytest.param(
            _told(ids=frozenset({"run.finished/z/1"})), "acknowledged and is in the log 0 times",
            id="I1: an acknowledged event is lost",
        ),
        pytest.param(
            lambda sound: sound.with_row(_row(6, "run.recorded/s/1/1", "s", (SEGMENT,))), "is in the log 2 times",
            id="I1: an event is there twice",
        ),
        pytest.param(
            lambda sound: sound.with_row(_row(6, "x/1", "s")).with_row(_row(7, "x/1", "s")),
            "was in doubt and is in the log 2 times", id="I1: a doubtful event is there twice",
        ),
        pytest.param(
            _told(seen={0: b"what was read"}), "entry 0 was read and is another now",
            id="I1: an entry that was read has changed",
        ),
        pytest.param(
            _told(seen={9: b"what was read"}), "entry 9 was read and is another now",
            id="I1: an entry that was read is gone",
        ),
        pytest.param(
            lambda sound: sound.with_row(_row(6, "run.lost/s/1", "s", run=1)), "has 2 ends",
            id="I1: a finished run is also lost",
        ),
        pytest.param(
            lambda sound: replace(sound.without("run.finished/s/1"), told=Acknowledged()), "has 0 ends",
            id="I1: a claimed run never ends",
        ),
        pytest.param(
            lambda sound: sound.without("run.claimed/s/1"), "ended and was never claimed",
            id="I1: the claim of a run is not in the log",
        ),
        pytest.param(_left(blobs=frozenset({OUTPUT})), "which is not stored", id="I1: a blob of an entry is lost"),
        pytest.param(
            lambda sound: sound.with_row(_row(6, "task.accepted/t/3", "t", round=3, subjects=[])),
            "is accepted in rounds [2, 3]", id="I2: a Task is accepted twice",
        ),
        pytest.param(
            lambda sound: sound.without("task.accepted/t/2"), "is accepted in rounds []",
            id="I2: a Task is not accepted",
        ),
        pytest.param(
            lambda sound: sound.without("task.rejected/t/1"), "is rejected in rounds []",
            id="I2: the round that must be rejected is not",
        ),
        pytest.param(
            lambda sound: replace(sound, artifacts=(*sound.artifacts, _artifact("again"))), "has 2 Artifacts",
            id="I2: one output has two Artifacts",
        ),
        pytest.param(
            lambda sound: sound.without("artifact.recorded/s/1/report"), "is recorded 0 times",
            id="I2: an Artifact is not recorded",
        ),
        pytest.param(
            lambda sound: replace(sound, artifacts=(_artifact(round_=1),)), "there is no Artifact of its round",
            id="I2: what was accepted was not produced in that round",
        ),
        pytest.param(
            lambda sound: replace(sound, later={"log": "8", "Task a": "3"}), "log went from 7 to 8",
            id="I3: the log grows while all is done",
        ),
        pytest.param(
            lambda sound: replace(sound, later={"log": "7", "Task a": "4"}), "Task a went from 3 to 4",
            id="I3: a status is written while all is done",
        ),
        pytest.param(_left(processes=(4711,)), "process 4711", id="I4: a harness outlives its run"),
        pytest.param(_left(workspaces=("s-1",)), "workspace s-1", id="I4: a workspace stays"),
        pytest.param(_left(live=("s",)), "still holds a lease", id="I4: a lease is held for ever"),
        pytest.param(_left(temporaries=("f",)), "temporary file f", id="I4: half a blob stays"),
        pytest.param(
            _left(blobs=frozenset({OUTPUT, SEGMENT, "sha256:" + "c" * 64})), "is named by nothing",
            id="I4: a blob is stored and nothing names it",
        ),
        pytest.param(
            _objects(_object("Task", "a", reason="")), "explains nothing", id="I5: a condition without a reason"
        ),
        pytest.param(
            _objects({**_object("Task", "a"), "status": {}}), "has no condition Succeeded", id="I5: no condition at all"
        ),
        pytest.param(
            _objects(_object("Node", "n", status="Unknown", message="Waiting")), "Node n: Done: Waiting",
            id="I5: the Node does not know that its Task is done",
        ),
        pytest.param(
            _objects(_object("Task", "a", observedGeneration=0)), "Task a: Done",
            id="I5: the condition is of an earlier spec",
        ),
    ],
)  # fmt: skip
def test_doctored_evidence_is_caught(doctor: Callable[[Evidence], Evidence], says: str) -> None:
    found = doctor(_sound()).problems()
    assert any(says in problem for problem in found), found


def test_fifty_seeds_reach_every_victim_and_most_places() -> None:
    plans = [plan_of(seed) for seed in range(1, 51)]
    assert {plan.victim for plan in plans} == set(MOST)
    places = {(plan.victim, plan.place) for plan in plans}
    assert len(places) > sum(len(of) for of in MOST.values()) * 2 // 3


def test_a_seed_is_one_plan() -> None:
    assert plan_of(24) == plan_of(24)
    assert str(plan_of(29)) == "seed 29, fifty steps: operator at kube.write.before:229"
    assert str(plan_of(47)) == "seed 47, small: operator at kube.write.after:22"


def test_what_a_named_blob_names_is_not_left_over() -> None:
    spec, value, stray = ("sha256:" + digit * 64 for digit in "def")
    rows = [_row(0, "resource.observed/u/1", "u", specDigest=spec)]
    links = {spec: frozenset({value}), stray: frozenset({spec})}
    left = Leftovers(blobs=frozenset({spec, value, stray}), links=links)
    assert nothing_left(rows, left) == [f"blob {stray} is named by nothing in the log or below it"]


def test_outputs_that_differ_from_the_undisturbed_ones_are_told() -> None:
    undisturbed = {("a", "report"): OUTPUT, ("b", "report"): OUTPUT}
    assert same_digests(undisturbed, undisturbed) == []
    assert same_digests(undisturbed, {("a", "report"): SEGMENT}) == [
        f"output report of Task a is {SEGMENT}, undisturbed it is {OUTPUT}",
        f"output report of Task b is missing, undisturbed it is {OUTPUT}",
    ]


def test_a_plan_that_did_not_strike_is_tried_earlier_until_there_is_no_earlier_passage() -> None:
    for seed in range(1, 51):
        plan = plan_of(seed)
        first = FIRST.get((plan.victim, plan.place), 1)
        passages = [plan.passage]
        while (earlier := plan.earlier()) is not None:
            plan = earlier
            passages.append(plan.passage)
        assert passages == sorted(set(passages), reverse=True)
        assert passages[-1] == first
