"""The producer reviews through a second Agent, a second account's Harness, or the same session: all signed by the
operator, as if it had let them."""

from typing import Any

import pytest
from tests.attacks.attested import Forger, accepted, fooled, refused

from triplane.audit.attestation import REVIEW

pytestmark = pytest.mark.attacks


def _reviewer(change: dict[str, str]) -> Any:
    """The reviewer, with these of the producer's."""

    def alter(document: dict[str, Any]) -> None:
        said = document["predicate"]
        for mine, theirs in change.items():
            said["reviewer"][mine] = said["producer"][theirs]

    return alter


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"agent": "agent"}, "the agent is the same", id="by the same agent"),
        pytest.param({"session": "session"}, "the session is the same", id="in the same session"),
        pytest.param({"harnessPrincipal": "principal"}, "controls the Harness", id="through another's Harness"),
    ],
)
async def test_who_produced_cannot_review(monkeypatch: pytest.MonkeyPatch, change: dict[str, str], why: str) -> None:
    forger = Forger(await accepted())
    forger.restate(REVIEW, _reviewer(change))
    assert fooled(monkeypatch, forger.evidence, "independence")
    step, found = refused(forger.evidence)
    assert step == "independence"
    assert why in found


async def test_a_second_agent_of_the_same_user_cannot_review(monkeypatch: pytest.MonkeyPatch) -> None:
    forger = Forger(await accepted())
    forger.restate(REVIEW, _reviewer({"principal": "principal", "harnessPrincipal": "principal"}))

    def logged(entry: dict[str, Any]) -> None:
        producer = forger.statement(REVIEW)["predicate"]["producer"]["principal"]
        entry["data"] = {**entry["data"], "reviewerPrincipal": producer}

    forger.replace_entry(forger.seq_of("review.recorded"), logged)
    assert fooled(monkeypatch, forger.evidence, "independence")
    step, why = refused(forger.evidence)
    assert step == "independence"
    assert "the same user controls both, p-alice" in why


async def test_one_person_is_one_reviewer_however_many_reviews_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = {"review": {"reviewers": 2, "capability": "review", "people": ["carol"]}}
    forger = Forger(await accepted("carol", **mixed))
    first = forger.statement(REVIEW, 0)["predicate"]["reviewer"]
    forger.restate(REVIEW, lambda document: document["predicate"].update(reviewer={**first, "agent": "x"}), 1)
    forger.replace_entry(
        forger.seq_of("review.recorded", 1),
        lambda entry: entry.update(data={**entry["data"], "reviewerPrincipal": first["principal"]}),
    )
    forger.restate("https://slsa.dev/verification_summary/v1", _only_agents)
    assert fooled(monkeypatch, forger.evidence, "independence")
    step, why = refused(forger.evidence)
    assert step == "independence"
    assert "is not independent of review" in why


def _only_agents(document: dict[str, Any]) -> None:
    policy = document["predicate"]["policy"]
    policy["uri"] = policy["uri"].replace("people=true", "people=false")
