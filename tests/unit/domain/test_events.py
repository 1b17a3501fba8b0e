"""Entries about runs: deterministic, in the format, free of prose."""

from dataclasses import replace

import pytest

from triplane.audit.digest import digest_of_bytes
from triplane.audit.entry import prepare
from triplane.domain import events
from triplane.domain.session import Offer, Outcome, Permit, RunOutput, RunResult, RunState, RunView, SessionView

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
OFFER = Offer("s-1", "team", "work", "t-1", "g-1", "a-1", "agent", "Producer", ONE, {"objective": "secret prose"})
RESULT = RunResult(
    Outcome.SUCCEEDED,
    "Completed",
    "prose that stays out of the log",
    (RunOutput("report", "report.md", TWO, "text/markdown", 9),),
    ONE,
    exit_code=0,
)
RUN = RunView(
    1,
    RunState.FINISHED,
    2,
    permit_expired=False,
    runner="local",
    instance="i-1",
    facts={"isolated": True, "seconds": 0.25, "note": "prose"},
    result=RESULT,
    claimed_at="2026-01-31T12:00:00.000000Z",
    started_at="2026-01-31T12:00:01.000000Z",
    run_inputs={"findings": ["prose"]},
)
PERMIT = Permit("s-1", 1, 1, ONE, revocation_revision=0, run_inputs={"findings": ["prose"]})
VIEW = SessionView(OFFER, (RUN,), record_digests=((1, 1, ONE), (1, 2, TWO)))


def test_the_history_of_a_run_is_in_order_and_each_body_is_a_valid_entry() -> None:
    bodies = events.run_history(VIEW, RUN)
    assert [body.id for body in bodies] == [
        "run.claimed/s-1/1",
        "run.started/s-1/1",
        "run.recorded/s-1/1/1",
        "run.recorded/s-1/1/2",
        "run.finished/s-1/1",
    ]
    for body in (*bodies, events.session_offered(OFFER), events.run_permitted(OFFER, PERMIT)):
        assert b"prose" not in prepare("localhost/abc", body).seal(1, "0" * 64, "2026-01-31T12:00:00.000000Z")
        assert (body.stream, body.actor, body.subject.uid) == ("graph/g-1", "system", "s-1")


def test_a_body_depends_on_what_is_stored_and_not_on_where_the_run_is_now() -> None:
    earlier = replace(RUN, state=RunState.CLAIMED, result=None, started_at=None, facts={})
    assert events.run_claimed(VIEW, RUN) == events.run_claimed(replace(VIEW, runs=(earlier,)), earlier)


@pytest.mark.parametrize(
    ("state", "last"),
    [
        (RunState.LOST, "run.lost/s-1/1"),
        (RunState.REVOKED, "run.revoked/s-1/1"),
        (RunState.STARTED, "run.recorded/s-1/1/2"),
    ],
)
def test_the_end_of_a_run_is_the_last_of_its_history(state: RunState, last: str) -> None:
    run = replace(RUN, state=state, result=None, end_reason="LeaseExpired")
    bodies = events.run_history(VIEW, run)
    assert bodies[-1].id == last


def test_a_run_nobody_claimed_has_no_history() -> None:
    assert events.run_history(VIEW, RunView(2, RunState.PERMITTED, 1, permit_expired=False)) == ()


def test_prose_as_a_reason_is_left_out() -> None:
    run = replace(RUN, state=RunState.REVOKED, end_reason="because alice said so")
    assert events.run_revoked(VIEW, run).data["reason"] == "Unspecified"
    assert events.run_revoked(VIEW, replace(run, end_reason="TaskDeleted")).data["reason"] == "TaskDeleted"


def test_facts_are_the_blob_of_the_started_entry() -> None:
    body = events.run_started(VIEW, RUN)
    assert body.blobs == (digest_of_bytes(events.facts_document(RUN)),)
    assert body.data == {"run": 1, "isolated": True}


def test_the_result_names_outputs_and_reflection_by_digest() -> None:
    body = events.run_finished(VIEW, RUN)
    assert body.blobs == (ONE, TWO)
    assert body.data["outputs"] == [{"name": "report", "digest": TWO}]
    assert body.data["outcome"] == "succeeded"


def test_a_principal_and_a_blob_have_entries_of_their_own() -> None:
    document = events.principal_document(username="alice", uid="u", salt="5a1t")
    bodies = [
        events.principal_created("p-1", document),
        events.blob_quarantined(ONE, 1),
        events.blob_erased(ONE, 2),
    ]
    for body in bodies:
        prepare("localhost/abc", body)
        assert body.stream == "system"
    assert bodies[0].blobs == (digest_of_bytes(document),)
    assert bodies[2].id == f"blob.erased/{'1' * 64}/2"
