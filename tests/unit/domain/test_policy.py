"""Whom a Policy binds, in which order violations are told, and what the digest of what was asked stands for."""

from dataclasses import replace
from typing import Any

import pytest

from triplane.api.policy import Enforcement, PolicySpec, Stage
from triplane.domain.policy import KnownPolicy, PolicyRequest, binds, decision, spec_problems

TASK: dict[str, Any] = {"metadata": {"name": "t", "namespace": "team", "labels": {"tier": "gold"}}, "spec": {}}
REQUEST = PolicyRequest(stage=Stage.ADMISSION, operation="CREATE", kind="Task", namespace="team", name="t", object=TASK)


def policy(namespace: str = "team", name: str = "p", *, generation: int = 1, **spec: Any) -> dict[str, Any]:
    whole = {"match": {"kinds": ["Task"]}, "stages": ["Admission", "Launch"], "validations": [{"expression": "true"}]}
    metadata = {"namespace": namespace, "name": name, "uid": f"u-{name}", "generation": generation}
    return {"kind": "Policy", "metadata": metadata, "spec": {**whole, **spec}}


def match(**more: Any) -> dict[str, Any]:
    return {"match": {"kinds": ["Task"], **more}}


def selector(**labels: str) -> dict[str, Any]:
    return {"selector": {"matchLabels": labels}}


@pytest.mark.parametrize(
    ("said", "request_", "bound"),
    [
        pytest.param(policy(), REQUEST, True, id="its own namespace"),
        pytest.param(policy("other"), REQUEST, False, id="another namespace's is nobody's business here"),
        pytest.param(policy("triplane-system"), REQUEST, True, id="the installation's binds everybody"),
        pytest.param(policy("triplane-system", **match(namespaces=["te*"])), REQUEST, True, id="a namespace it names"),
        pytest.param(
            policy("triplane-system", **match(namespaces=["prod"])), REQUEST, False, id="one it does not name"
        ),
        pytest.param(policy("triplane-system", **match(namespaces=[])), REQUEST, False, id="it names none at all"),
        pytest.param(policy(match={"kinds": ["Agent"]}), REQUEST, False, id="another kind"),
        pytest.param(policy(stages=["Launch"]), REQUEST, False, id="another stage"),
        pytest.param(policy(**match(operations=["UPDATE"])), REQUEST, False, id="another operation"),
        pytest.param(policy(**match(operations=["CREATE"])), REQUEST, True, id="this operation"),
        pytest.param(
            policy(**match(operations=["UPDATE"])),
            replace(REQUEST, stage=Stage.LAUNCH, operation="LAUNCH"),
            True,
            id="operations say nothing of launch",
        ),
        pytest.param(policy(**match(**selector(tier="gold"))), REQUEST, True, id="labels that fit"),
        pytest.param(policy(**match(**selector(tier="lead"))), REQUEST, False, id="labels that do not"),
        pytest.param(
            policy(**match(**selector(tier="lead"))),
            replace(REQUEST, operation="UPDATE", old_object={"metadata": {"labels": {"tier": "lead"}}, "spec": {}}),
            True,
            id="labels it had before: taking one off is no way out",
        ),
        pytest.param(
            policy(**match(selector={"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]})),
            REQUEST,
            False,
            id="an expression that does not hold",
        ),
        pytest.param(policy(colour="red"), REQUEST, True, id="one that cannot be read binds whatever it is about"),
        pytest.param(policy("other", colour="red"), REQUEST, False, id="but not beyond its namespace"),
    ],
)
def test_binds(said: dict[str, Any], request_: PolicyRequest, bound: bool) -> None:
    assert binds(KnownPolicy.of(said), request_) is bound


def test_one_that_cannot_be_read_denies() -> None:
    assert KnownPolicy.of(policy(colour="red", enforcement="Audit")).enforcement is Enforcement.DENY


def test_deny_comes_first_then_by_policy_and_by_place() -> None:
    audit, deny = KnownPolicy.of(policy(name="a", enforcement="Audit")), KnownPolicy.of(policy(name="b"))
    made = decision(
        [deny, audit],
        [
            audit.violated("validations[0]", "x"),
            deny.violated("validations[10]", "x"),
            deny.violated("validations[9]", "x"),
        ],
    )
    assert [(each.policy, each.rule) for each in made.violations] == [
        ("b", "validations[9]"),
        ("b", "validations[10]"),
        ("a", "validations[0]"),
    ]
    assert [each.policy for each in made.denied] == ["b", "b"]


def test_the_digest_is_of_what_was_asked_in_any_order() -> None:
    one, other = KnownPolicy.of(policy(name="a")), KnownPolicy.of(policy(name="b"))
    both = decision([one, other], [])
    assert both.digest == decision([other, one], []).digest
    assert both.digest != decision([one], []).digest


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(policy(generation=2), id="another generation"),
        pytest.param(policy(validations=[{"expression": "false"}]), id="another spec"),
        pytest.param(policy(name="q"), id="another Policy"),
    ],
)
def test_the_digest_tells_what_changed(edited: dict[str, Any]) -> None:
    before = decision([KnownPolicy.of(policy())], []).digest
    assert decision([KnownPolicy.of(edited)], []).digest != before


@pytest.mark.parametrize(
    ("operator", "values", "wrong"),
    [
        pytest.param("In", None, "needs values", id="In without values"),
        pytest.param("Exists", ["a"], "takes no values", id="Exists with values"),
        pytest.param("NotIn", ["a"], None, id="NotIn with values"),
    ],
)
def test_a_selector_that_means_nothing(operator: str, values: list[str] | None, wrong: str | None) -> None:
    requirement = {"key": "tier", "operator": operator, **({} if values is None else {"values": values})}
    spec = PolicySpec.model_validate(policy(**match(selector={"matchExpressions": [requirement]}))["spec"])
    found = list(spec_problems(spec))
    assert [each.field for each in found] == (
        [] if wrong is None else ["spec.match.selector.matchExpressions[0].values"]
    )
    assert wrong is None or wrong in found[0].message


def test_numbers_without_a_digest_are_told_and_deny() -> None:
    huge = policy(params={"n": 2**60})
    (problem,) = spec_problems(PolicySpec.model_validate(huge["spec"]))
    assert problem.field == "spec.params"
    known = KnownPolicy.of(huge)
    assert known.spec is None
    assert binds(known, REQUEST)
