"""Six kills of the campaign; ``make faults`` does fifty (docs/how-to/run-the-fault-campaign.md)."""

import pytest

from tests.faults.campaign import run_plan
from tests.faults.evidence import broken_silence
from tests.faults.installation import Installation
from tests.faults.plans import plan_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SEEDS = (2, 8, 13, 14, 29, 39)
"""Five during the fifty steps, one during the small work; every process is killed in one of them."""
SILENCE_SECONDS = 30.0


@pytest.mark.parametrize("seed", [pytest.param(seed, id=str(plan_of(seed))) for seed in SEEDS])
def test_a_kill_in_the_middle_of_the_work_does_not_show_in_the_end(installation: Installation, seed: int) -> None:
    outcome = run_plan(installation, plan_of(seed))
    assert outcome.problems == []


def test_after_all_of_it_nothing_is_written_any_more(installation: Installation) -> None:
    assert broken_silence(installation, SILENCE_SECONDS) == []
