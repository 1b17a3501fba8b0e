"""The round was accepted first, and the review that was to decide it was written into the log afterwards."""

import pytest
from tests.attacks.attested import Forger, accepted, fooled, refused

from triplane.audit.attestation import REVIEW

pytestmark = pytest.mark.attacks


@pytest.mark.parametrize(
    ("what", "who"),
    [
        pytest.param("the review", "review uid", id="the review"),
        pytest.param("its statement", "statement of review", id="its statement"),
    ],
)
async def test_a_review_after_the_acceptance_decided_nothing(
    monkeypatch: pytest.MonkeyPatch, what: str, who: str
) -> None:
    forger = Forger(await accepted())
    seq = forger.seq_of("review.recorded") if what == "the review" else forger.place_of(REVIEW)
    forger.move(seq, 5000)
    assert fooled(monkeypatch, forger.evidence, "order")
    step, why = refused(forger.evidence)
    assert step == "order"
    assert why.startswith(who)
    assert "is entry 5000, after the acceptance" in why


async def test_a_review_before_there_was_anything_to_judge_judged_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    forger.move(forger.seq_of("artifact.recorded"), forger.seq_of("review.recorded") + 100_000)
    forger.move(forger.seq_of("task.accepted"), 200_000)
    assert fooled(monkeypatch, forger.evidence, "order")
    step, why = refused(forger.evidence)
    assert step == "order"
    assert "before the work it judges" in why
