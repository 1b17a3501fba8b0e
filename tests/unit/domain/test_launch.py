"""The clock rules of launch permits, which no backend can show without turning its clock."""

from datetime import UTC, datetime, timedelta

import pytest

from triplane.domain.launch import StoredPermit

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
