"""Somebody edits a Guideline while a session works by it, so that the record says it was told something else."""

import hashlib

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_instructions import begin, fail, look, made, materials

from triplane.controllers import task_plan
from triplane.domain.guideline import PinnedGuideline
from triplane.domain.session import Claim
from triplane.domain.snapshot import Pinned

pytestmark = pytest.mark.attacks

BEFORE, AFTER = "Report every payment.", "Report no payment."


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


async def edited_mid_run() -> tuple[MemoryWorld, Claim]:
    built = made()
    built.server.put("Guideline", "payments", {"text": BEFORE}, "carol")
    claim = await begin(built)
    built.server.edit("Guideline", "payments", text=AFTER)
    await look(built)
    return built, claim


def recorded(built: MemoryWorld, uid: str) -> list[str]:
    return [item["digest"] for item in materials(built, uid) if item["role"] == "guideline"]


async def test_pinned_by_name_alone_the_record_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_name(item: PinnedGuideline) -> Pinned:
        return Pinned("guideline", item.name, item.uid, None, sha256(item.name))

    monkeypatch.setattr(task_plan, "_pin_guideline", by_name)
    built, claim = await edited_mid_run()
    assert recorded(built, claim.session_uid) == [sha256("payments")], "whatever it says, or said"


async def test_the_record_keeps_the_digest_of_what_the_session_was_told() -> None:
    built, claim = await edited_mid_run()
    assert recorded(built, claim.session_uid) == [sha256(BEFORE)]
    view = await built.sessions.get(claim.session_uid)
    assert view is not None
    assert view.revoked is None, "it goes on"
    (told,) = view.offer.work_order["guidelines"]
    assert (told["text"], told["digest"]) == (BEFORE, sha256(BEFORE))
    await fail(built, claim)
    again = await begin(built)
    assert again.session_uid != claim.session_uid, "what is told something else is another session"
    assert recorded(built, again.session_uid) == [sha256(AFTER)]
    assert recorded(built, claim.session_uid) == [sha256(BEFORE)]


async def test_a_guideline_made_anew_under_its_name_is_another() -> None:
    built = made()
    built.server.put("Guideline", "payments", {"text": BEFORE}, "carol")
    claim = await begin(built)
    built.server.objects.pop(("Guideline", NAMESPACE, "payments"))
    built.server.put("Guideline", "payments", {"text": BEFORE}, "mallory")
    await fail(built, claim)
    again = await begin(built)
    assert again.session_uid != claim.session_uid
    assert recorded(built, again.session_uid) == [sha256(BEFORE)]
