"""Ways past a Policy at admission: take off the label it goes by, hide an edit behind a stop, come too early."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.conditions import inline_policies
from tests.unit.admission.test_policies import Known, Notes, Stored, asked, policy

from triplane.adapters.cel import policies as engine
from triplane.adapters.kube.lookup import Lookup
from triplane.adapters.kube.watched import Watched
from triplane.admission import policies as admission
from triplane.admission.asked import Asked
from triplane.admission.policies import Policies, PolicyCheck
from triplane.domain.policy import KnownPolicy, PolicyRequest, binds
from triplane.errors import Unavailable

pytestmark = pytest.mark.attacks

BARE = asked().object
MARKED = {**BARE, "metadata": {**BARE["metadata"], "labels": {"risk": "high"}}}


async def denied(policies: Policies, request: Asked) -> bool:
    return bool((await PolicyCheck(policies, inline_policies(), Notes())(request, Stored())).violations)


@pytest.mark.parametrize("weak", [True, False], ids=["the new labels alone count", "those before count too"])
async def test_taking_the_label_off(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:

        def newest(known: KnownPolicy, request: PolicyRequest) -> bool:
            return binds(known, replace(request, old_object=None))

        monkeypatch.setattr(engine, "binds", newest)
    risky = policy("false", match={"kinds": ["Task"], "selector": {"matchLabels": {"risk": "high"}}})
    assert await denied(Known(risky), asked(old=MARKED)) is not weak


@pytest.mark.parametrize("weak", [True, False], ids=["a stop is let through unread", "what else it changes counts"])
async def test_an_edit_behind_a_cancel(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:

        def stopping(request: Asked) -> bool:
            return bool(request.object["spec"].get("cancel"))

        monkeypatch.setattr(admission, "_only_stops", stopping)
    edit = asked(old=BARE, cancel=True, maxRetries=99)
    assert await denied(Known(policy("object.spec.?maxRetries.orValue(1) < 9")), edit) is not weak


@pytest.mark.parametrize(
    "weak", [True, False], ids=["what is not known does not bind", "nothing is known: nothing passes"]
)
async def test_coming_before_the_policies_are_known(
    weak: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unread = Watched(Lookup(tmp_path / "kubeconfig"), "Policy")
    if weak:

        def nothing_amiss(self: Watched) -> str | None:
            return None

        monkeypatch.setattr(Watched, "missing", nothing_amiss)
        assert not await denied(unread, asked()), "it is admitted as if there were no Policy"
        return
    with pytest.raises(Unavailable, match="have not been read yet"):
        await denied(unread, asked())


@pytest.mark.parametrize("weak", [True, False], ids=["a failure is no violation", "a failure denies"])
async def test_an_object_a_rule_chokes_on(weak: bool) -> None:
    """Left out on purpose: the field the rule reads. A careful rule asks first; a careless one must fail closed."""
    careless = policy("object.spec.timeoutSeconds <= 60")
    if weak:
        careless = policy("object.spec.timeoutSeconds <= 60", matchConditions=[_has("timeoutSeconds")])
    assert await denied(Known(careless), asked()) is not weak


def _has(field: str) -> Mapping[str, Any]:
    return {"name": "declared", "expression": f"has(object.spec.{field})"}
