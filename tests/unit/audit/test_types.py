"""The published event types: what we write meets them, and the reference page names them all."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.api.meta import Gate, Subject, Verdict
from triplane.api.policy import Enforcement, Stage
from triplane.api.tool import EgressClass
from triplane.api.work import Merge
from triplane.audit.attestation import SUMMARY, attest
from triplane.audit.attestation import Subject as Attested
from triplane.audit.chain import BreakReason
from triplane.audit.entry import KEYS, first_bodies, prepare
from triplane.audit.keys import key_created, key_retired
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.types import TYPES, violations
from triplane.domain import approval_log, events, node_log, policy_log, task_log, tool_log
from triplane.domain.collection import ReferencesFacts
from triplane.domain.session import (
    Offer,
    Outcome,
    Permit,
    Question,
    RunOutput,
    RunResult,
    RunState,
    RunView,
    SessionView,
)
from triplane.domain.task_facts import Approval, Placement
from triplane.domain.task_needs import ComposedEdge, Composition
from triplane.domain.toolcall import CallStatus, Leave

DIGEST = "sha256:" + "ab" * 32
STREAM = "graph/g1"
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "log-format.md"

OFFER = Offer(
    session_uid="s1",
    namespace="demo",
    name="t-producer",
    task_uid="t1",
    graph_uid="g1",
    agent_uid="a1",
    agent_name="auditor",
    role="producer",
    snapshot_digest=DIGEST,
    work_order={},
)
OUTPUT = RunOutput("report", "report.md", DIGEST, "text/markdown", 12)
TASK = EventSubject(kind="Task", namespace="demo", name="t", uid="t1", generation=2)
NODE = EventSubject(kind="Node", namespace="demo", name="n", uid="n1", generation=1)
WIDEST = Composition(
    "i" * 63,
    Merge.JSON_OBJECT,
    b"{}",
    DIGEST,
    tuple(ComposedEdge("u" * 36, "s" * 253, "o" * 63, DIGEST, "/" + "p" * 255, "/" + "t" * 255) for _ in range(64)),
)
"""As much as an input can be made of."""
REVIEW = task_log.ReviewFacts("r", "r1", "p-1", "s2", "a2")
SUBJECTS = (Subject(name="report", digest=DIGEST),)
WIDEST_REVIEW = task_log.ReviewFacts("r" * 253, *("u" * 36 for _ in range(4)))
WIDEST_SUBJECTS = tuple(Subject(name=f"s{number:062d}", digest=DIGEST) for number in range(64))
WIDEST_ATTESTED = [Attested(item.name, item.digest, "u" * 36) for item in WIDEST_SUBJECTS]
SIGNER = MemorySigner(b"one")
APPROVAL = Approval(Gate.OUTPUTS, 1, "r1", SUBJECTS, "r", "r1", "p-1", "s2", "a2")


def run(**changes: Any) -> RunView:
    values: dict[str, Any] = {
        "run": 1,
        "state": RunState.FINISHED,
        "permit_counter": 1,
        "permit_expired": False,
        "runner": "local",
        "instance": "i1",
        "facts": {"isolated": True},
        "started_at": "now",
        "result": RunResult(Outcome.SUCCEEDED, "Completed", "fine", (OUTPUT,), DIGEST, exit_code=0),
    }
    return RunView(**{**values, **changes})


VIOLATION = policy_log.Seen(
    policy="p" * 253, policy_namespace="n" * 63, policy_uid="u" * 36, policy_generation=2, enforcement=Enforcement.DENY,
    stage=Stage.LAUNCH, operation="LAUNCH", kind="Task", namespace="n" * 63, name="t" * 253, rule="validations[31]",
    reason="R" * 64, message="m" * 1024, spec={"objective": "x"}, object_uid="u" * 36,
)  # fmt: skip
QUESTION = Question("s1", 1, "call-1-1", DIGEST, "t/o", ("carol",), datetime.now(UTC), datetime.now(UTC))
ANSWERED = replace(QUESTION, answer=True, review="r1", principal="p-1")
CALLED = tool_log.Invocation(
    1, "call-1-1", f"{'t' * 60}/{'o' * 66}", CallStatus.REFUSED, Leave.NOT_ASKED, DIGEST, DIGEST, EgressClass.NONE,
    5, 12, redacted=True, rule="AuthorityExceeded", axis="budget.costMinorUnits",
)  # fmt: skip
VIEW = SessionView(OFFER, (run(),), record_digests=((1, 1, DIGEST),))

WRITTEN: tuple[EventBody, ...] = (
    *first_bodies("localhost", "abc"),
    events.principal_created("p-1", b"{}"),
    events.session_offered(OFFER),
    events.session_stopped(OFFER, "AuthorityNarrowed", "sha256:" + "0" * 64),
    events.run_permitted(OFFER, Permit("s1", 1, 1, DIGEST, 0)),
    *events.run_history(VIEW, run()),
    events.run_finished(VIEW, run(result=RunResult(Outcome.FAILED, "HarnessFailed", "broke"))),
    events.run_lost(VIEW, run(state=RunState.LOST, end_reason="RunnerLost: it is gone")),
    events.run_revoked(VIEW, run(state=RunState.REVOKED, end_reason=None)),
    events.blob_quarantined(DIGEST, 1),
    events.blob_erased(DIGEST, 1),
    events.log_archived("localhost/f00d", 0, 256, "ab" * 32, 300, 2, ReferencesFacts(17, "cd" * 32)),
    events.log_archived("localhost/f00d", 0, 256, "ab" * 32, 300, 2, None),
    events.checkpoint_abandoned("localhost/f00d", 1, "localhost/f00d", 300, bytes(32)),
    events.blobs_collected(events.collection_manifest("2026-01-01T00:00:00+00:00", [DIGEST]), 1, 2**53 - 1),
    task_log.task_placed(TASK, STREAM, Placement("reviewer", 0, 1, "a1", "auditor", "p-1", "p-2")),
    task_log.task_placed(TASK, STREAM, Placement("producer", 0, 0, "a1", "auditor", None, None)),
    task_log.task_accepted(TASK, STREAM, 0, [REVIEW], SUBJECTS),
    task_log.task_accepted(TASK, STREAM, 1, [WIDEST_REVIEW] * 8, WIDEST_SUBJECTS),
    approval_log.approval_asked(TASK, STREAM, 1, "s1", SUBJECTS),
    approval_log.approval_given(TASK, STREAM, APPROVAL),
    approval_log.approval_given(TASK, STREAM, Approval(Gate.LAUNCH, 1, "s1", SUBJECTS, session_uid="s1")),
    approval_log.approval_given(TASK, STREAM, replace(APPROVAL, gate=Gate.TOOL, key="s1.call-1"), run=1, tool="t/o"),
    approval_log.approval_refused(TASK, STREAM, replace(APPROVAL, gate=Gate.LAUNCH, key="s1"), DIGEST),
    task_log.task_rejected(TASK, STREAM, 0, task_log.ReviewFacts("r", "r1", None), DIGEST, 3),
    task_log.task_failed(TASK, STREAM, 1, "RetriesExhausted", DIGEST),
    task_log.task_skipped(TASK, STREAM, "ConditionFalse", DIGEST, {f"{n:063d}": "completed" for n in range(64)}),
    *task_log.input_composed(TASK, STREAM, WIDEST),
    VIOLATION.entry("p-1"),
    tool_log.tool_asked(OFFER, QUESTION),
    tool_log.tool_begun(OFFER, 1, "call-1-1", "t/o", DIGEST, EgressClass.EXTERNAL),
    tool_log.tool_invoked(OFFER, CALLED, ANSWERED),
    tool_log.tool_invoked(OFFER, replace(CALLED, rule=None, axis=None), None),
    node_log.node_planned(NODE, STREAM, DIGEST, 3, workflow=("w1", 2)),
    node_log.node_aborted(NODE, STREAM, "FailFast", step="build"),
    task_log.task_stalled(TASK, STREAM, "NoIndependentReviewer"),
    task_log.artifact_recorded(TASK, STREAM, "s1", 1, 0, OUTPUT),
    task_log.review_recorded(TASK, STREAM, "p-1", REVIEW, Verdict.REJECT, SUBJECTS),
    attest(b"{}", SUMMARY, SIGNER, about=TASK, n=0, stream=STREAM, subjects=WIDEST_ATTESTED).body,
    key_created(SIGNER.public_key),
    key_retired(SIGNER.key_id),
    task_log.review_recorded(TASK, STREAM, "p-1", REVIEW, Verdict.APPROVE, SUBJECTS, gate=Gate.LAUNCH),
)


@pytest.mark.parametrize("body", [pytest.param(body, id=f"{n} {body.type}") for n, body in enumerate(WRITTEN)])
def test_what_is_written_is_a_valid_entry_of_a_published_type(body: EventBody) -> None:
    prepare("localhost/abc", body)
    assert body.type in TYPES
    assert violations(body.type, body.data) == []


def test_every_published_type_but_those_of_observation_is_tried_above() -> None:
    # The observer's two are built in a controller and checked where it is tested, on a real log.
    assert set(TYPES) - {body.type for body in WRITTEN} == {"resource.observed", "resource.gone"}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_schemas_are_valid_and_allow_further_members(name: str) -> None:
    schema = TYPES[name].schema
    Draft202012Validator.check_schema(schema)
    assert schema.get("additionalProperties", True) is True
    required = schema["required"]
    assert set(required) <= set(schema["properties"])
    if required:
        assert violations(name, {}) != []


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        pytest.param("resource.observed", {"specDigest": "sha256:AB"}, "specDigest", id="a digest in upper case"),
        pytest.param("task.stalled", {"reason": "no one is left"}, "reason", id="prose as a reason"),
        pytest.param("run.lost", {"run": 0, "reason": "X"}, "run", id="run zero"),
        pytest.param("resource.gone", {"deletedBy": "alice"}, "deletedBy", id="a name where none is known"),
    ],
)
def test_data_outside_a_schema_is_named(name: str, data: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in violations(name, data))


def test_types_of_later_releases_break_nothing() -> None:
    assert violations("webhook.delivered", {"anything": 1}) == []


def test_the_reference_page_names_every_type_reason_and_member() -> None:
    page = PAGE.read_text()
    for name in (*TYPES, *(reason.value for reason in BreakReason), *KEYS):
        assert f"`{name}`" in page, f"{PAGE.name} does not mention {name}"
