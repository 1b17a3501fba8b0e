"""A dry run that leaves traces: whoever may only try would fill the log, or tell it what never happened."""

from dataclasses import replace
from typing import Any

import pytest
from tests.simulation.conditions import inline_policies
from tests.unit.admission.test_policies import Known, Stored, asked, policy

from triplane.admission.policies import PolicyCheck
from triplane.admission.violations import ViolationNotes
from triplane.domain.policy import PolicyDecision, PolicyRequest

pytestmark = pytest.mark.attacks


class Forgetful(ViolationNotes):
    """The weakened check: it does not know a dry run from the real thing."""

    def note(self, decision: PolicyDecision, request: PolicyRequest) -> None:
        super().note(decision, replace(request, dry_run=False))


@pytest.mark.parametrize(
    ("notes", "traces"),
    [
        pytest.param(Forgetful, 1, id="one that forgets it is a dry run"),
        pytest.param(ViolationNotes, 0, id="the real one"),
    ],
)
@pytest.mark.parametrize("enforcement", ["Deny", "Warn", "Audit"])
async def test_a_dry_run_is_answered_and_leaves_no_trace(enforcement: str, notes: Any, traces: int) -> None:
    kept = notes(lambda: "", lambda: "")
    check = PolicyCheck(Known(policy("false", enforcement=enforcement)), inline_policies(), kept)
    outcome = await check(asked(dry_run=True), Stored())
    assert outcome.violations or outcome.warnings or outcome.audit, "the answer is that of the real thing"
    assert len(kept._waiting) == traces
