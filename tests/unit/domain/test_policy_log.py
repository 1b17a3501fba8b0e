"""Violations as log entries: the same thing is told once, secrets never, a dry run not at all."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from triplane.api.policy import Stage
from triplane.audit.types import violations
from triplane.domain.policy import KnownPolicy, PolicyDecision, PolicyRequest, decision
from triplane.domain.policy_log import seen

OBJECT: dict[str, Any] = {"metadata": {"name": "t", "namespace": "team", "uid": "u-t"}, "spec": {"objective": "x"}}
REQUEST = PolicyRequest(
    stage=Stage.ADMISSION, operation="CREATE", kind="Task", namespace="team", name="t", object=OBJECT
)
SPEC = {"match": {"kinds": ["Task"]}, "stages": ["Admission"], "validations": [{"expression": "false"}]}


def decided(message: str = "no", generation: int = 1) -> PolicyDecision:
    metadata = {"namespace": "team", "name": "p", "uid": "u-p", "generation": generation}
    policy = KnownPolicy.of({"metadata": metadata, "spec": SPEC})
    return decision([policy], [policy.violated("validations[0]", message, "TooMuch")])


def ids(made: PolicyDecision, request: PolicyRequest = REQUEST) -> list[str]:
    return [each.entry().id for each in seen(made, request)]


def test_the_entry_keeps_the_published_schema() -> None:
    (each,) = seen(decided(), REQUEST)
    body = each.entry()
    assert violations(body.type, body.data) == []
    assert body.id.startswith("policy.violated/u-p/1/")
    assert set(body.blobs) == set(each.documents())


def test_tried_again_it_is_the_same_entry() -> None:
    again = replace(REQUEST, object={**OBJECT, "metadata": {**OBJECT["metadata"], "uid": "another"}})
    assert ids(decided()) == ids(decided(), again)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(REQUEST, name="t2"), id="of another object"),
        pytest.param(replace(REQUEST, operation="UPDATE"), id="in another operation"),
        pytest.param(replace(REQUEST, stage=Stage.LAUNCH), id="at another stage"),
        pytest.param(replace(REQUEST, object={**OBJECT, "spec": {"objective": "y"}}), id="of another spec"),
    ],
)
def test_another_violation_is_another_entry(other: PolicyRequest) -> None:
    assert ids(decided()) != ids(decided(), other)


def test_of_a_dry_run_nothing_is_told() -> None:
    assert seen(decided(), replace(REQUEST, dry_run=True)) == ()


def test_secrets_stay_out_of_the_documents() -> None:
    key = "AKIA" + "A" * 16
    asked = replace(REQUEST, object={**OBJECT, "spec": {"objective": f"use {key}"}})
    (each,) = seen(decided(f"the objective holds {key}"), asked)
    assert key not in b"".join(each.documents().values()).decode()
    assert any("[redacted:aws-key]" in orjson.dumps(orjson.loads(one)).decode() for one in each.documents().values())
