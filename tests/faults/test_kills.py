"""Eight kills of the campaign; ``make faults`` does fifty (docs/how-to/run-the-fault-campaign.md)."""

import pytest

from tests.faults.campaign import run_plan
from tests.faults.evidence import broken_silence
from tests.faults.installation import Installation
from tests.faults.plans import plan_of

pytestmark = pytest.mark.faults

SEEDS = (8, 9, 12, 21, 24, 31, 42, 50)
"""Both sides of an append, of a write to the API server, of a store transaction and of a blob; a host; Postgres."""
SILENCE_SECONDS = 30.0


@pytest.mark.parametrize("seed", [pytest.param(seed, id=str(plan_of(seed))) for seed in SEEDS])
def test_a_kill_in_the_middle_of_the_work_does_not_show_in_the_end(installation: Installation, seed: int) -> None:
    outcome = run_plan(installation, plan_of(seed))
    assert outcome.problems == []


def test_after_all_of_it_nothing_is_written_any_more(installation: Installation) -> None:
    assert broken_silence(installation, SILENCE_SECONDS) == []
