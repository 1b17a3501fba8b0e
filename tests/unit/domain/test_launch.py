"""The rules of launch permits that no backend shows by itself: those of the clock, and how many are given ahead."""

from datetime import UTC, datetime, timedelta

import pytest

from triplane.domain.launch import (
    EAGER_PERMITS,
    MOST_AHEAD,
    StoredPermit,
    held_by,
    lookahead,
    may_launch,
    may_permit,
    pace_after,
)
from triplane.domain.session import HeldBy, Offer, Outstanding, RunState, RunView, SessionView

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "valid"),
    [
        pytest.param(0, True, id="valid from the instant it is written"),
        pytest.param(9.999999, True, id="valid to the end"),
        pytest.param(10, False, id="invalid at the end"),
        pytest.param(3600, False, id="invalid after the clock was put forward"),
        pytest.param(-0.000001, False, id="invalid after the clock was put back"),
    ],
)
def test_a_permit_is(after: float, valid: bool) -> None:
    permit = StoredPermit(1, revocation_revision=3, since=WRITTEN, seconds=10)
    assert permit.valid_at(WRITTEN + timedelta(seconds=after)) is valid


def test_a_permit_of_no_seconds_is_never_valid() -> None:
    assert not StoredPermit(1, revocation_revision=0, since=WRITTEN, seconds=0).valid_at(WRITTEN)


@pytest.mark.parametrize(
    ("revision", "usable"), [(2, True), (3, True), (4, False)], ids=["before", "at", "after a later revocation"]
)
def test_a_permit_is_usable_up_to_its_revocation_revision(revision: int, usable: bool) -> None:
    permit = StoredPermit(1, revocation_revision=3, since=WRITTEN, seconds=10)
    assert permit.usable(revision, WRITTEN) is usable


OFFER = Offer("s", "team", "s", "t", "g", "a", "agent", "producer", "sha256:", {})
PERMITTED = RunView(1, RunState.PERMITTED, 1, permit_expired=True)
FULL = Outstanding(2 * EAGER_PERMITS, 1)


@pytest.mark.parametrize(
    ("outstanding", "permitted"),
    [
        pytest.param(Outstanding(0, 0), True, id="an idle installation permits at once"),
        pytest.param(Outstanding(EAGER_PERMITS - 1, EAGER_PERMITS), True, id="the last one within the allowance"),
        pytest.param(Outstanding(EAGER_PERMITS, 1), False, id="enough lie ready"),
        pytest.param(Outstanding(EAGER_PERMITS, 0), True, id="enough lie ready, but none of this Graph"),
        pytest.param(Outstanding(2 * EAGER_PERMITS, 0), False, id="there is an end to that too"),
    ],
)
def test_permits_are_given_ahead(outstanding: Outstanding, permitted: bool) -> None:
    assert may_permit(outstanding) is permitted


@pytest.mark.parametrize(
    ("session", "outstanding", "launched"),
    [
        pytest.param(SessionView(OFFER, ()), Outstanding(0, 0), True, id="a first run while little lies ready"),
        pytest.param(SessionView(OFFER, ()), FULL, False, id="a first run while enough lies ready"),
        pytest.param(SessionView(OFFER, (), wanted=True), FULL, True, id="a first run that a runner waits for"),
        pytest.param(SessionView(OFFER, (), passed_over=True), FULL, False, id="one passed over, like any other"),
        pytest.param(
            SessionView(OFFER, (PERMITTED,), passed_over=True), FULL, False, id="a later run that was passed over"
        ),
        pytest.param(
            SessionView(OFFER, (), passed_over=True), Outstanding(0, 0), True, id="one passed over, when it is quiet"
        ),
        pytest.param(
            SessionView(OFFER, (), held_by=HeldBy.AGENT_LIMIT), Outstanding(0, 0), False, id="a first run that is held"
        ),
        pytest.param(SessionView(OFFER, (PERMITTED,)), None, True, id="a later run"),
    ],
)
def test_the_operator_launches(session: SessionView, outstanding: Outstanding | None, launched: bool) -> None:
    assert may_launch(session, outstanding) is launched


@pytest.mark.parametrize(
    ("counts", "held"),
    [
        pytest.param((5, None, 9, None), None, id="no limits"),
        pytest.param((1, 2, 9, 10), None, id="room in both"),
        pytest.param((2, 2, 9, 10), HeldBy.AGENT_LIMIT, id="the agent's is reached"),
        pytest.param((1, 2, 10, 10), HeldBy.GLOBAL_LIMIT, id="that of all is reached"),
        pytest.param((3, 2, 11, 10), HeldBy.AGENT_LIMIT, id="both: the nearer one is told"),
    ],
)
def test_a_session_is_held(counts: tuple[int, int | None, int, int | None], held: HeldBy | None) -> None:
    assert held_by(*counts) is held


def test_a_runner_that_got_nothing_always_asks_for_one() -> None:
    assert lookahead(0.0, waiting=True) == 1


def test_slow_claims_ask_for_nothing_ahead_and_quick_ones_for_half_a_second() -> None:
    assert lookahead(_pace(every=5.0), waiting=False) == 0
    assert lookahead(_pace(every=0.1), waiting=False) in (4, 5)
    assert lookahead(_pace(every=0.01), waiting=False) == MOST_AHEAD


def test_a_clock_put_back_does_not_blow_up_the_pace() -> None:
    assert pace_after(3.0, -3600.0) == 3.0
    assert pace_after(3.0, 3600.0) == pytest.approx(0.0)


def _pace(*, every: float) -> float:
    pace = 0.0
    for _ in range(1000):
        pace = pace_after(pace, every, claims=1)
    return pace
