"""Refusals as the API server words them, taken apart. The wordings are those of Kubernetes 1.36."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.authority import Axis
from triplane.domain.admission import Violation, exceeding, policy_field, refusal
from triplane.domain.why_denied import WEBHOOK, Cause, Layer, causes_of, sentences, stopped


def webhook(*violations: Violation) -> dict[str, Any]:
    """As the API server passes it on."""
    status = refusal("Task", "audit", violations)
    return {**status, "message": f'admission webhook "{WEBHOOK}" denied the request: {status["message"]}'}


def one(status: dict[str, Any]) -> Cause:
    (cause,) = causes_of(status)
    return cause


def test_a_static_policy_is_named_and_nobody_is_exempt() -> None:
    said = "annotation triplane.dev/approved is set by the operator alone, not by 'alice'"
    message = (
        "tasks.triplane.dev \"audit\" is forbidden: ValidatingAdmissionPolicy 'operator-metadata.triplane.dev' with "
        f"binding 'operator-metadata.triplane.dev' denied request: {said}"
    )
    cause = one({"code": 403, "reason": "Forbidden", "message": message, "details": {"causes": [{"message": message}]}})
    assert (cause.layer, cause.rule, cause.message) == (Layer.STATIC, "operator-metadata.triplane.dev", said)
    assert cause.ask == "nobody: this holds for administrators too"


def test_whoever_controls_the_object_is_asked() -> None:
    message = (
        "agents.triplane.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'controlled-by-requester.triplane.dev' with "
        "binding 'controlled-by-requester.triplane.dev' denied request: Agent a is controlled by 'bob'; 'alice' may "
        "not edit its spec: make one of your own"
    )
    assert one({"code": 403, "message": message}).ask == "bob"


def test_roles_are_told_from_policies() -> None:
    message = (
        'policies.triplane.dev is forbidden: User "alice" cannot create resource "policies" in API group '
        '"triplane.dev" in the namespace "demo"'
    )
    cause = one({"code": 403, "reason": "Forbidden", "message": message})
    assert cause.layer is Layer.ROLES
    assert cause.ask is not None
    assert "alice may not create policies" in cause.ask


def test_each_field_the_schema_refuses_is_a_cause() -> None:
    causes = [
        {"reason": "FieldValueRequired", "field": "spec.graphRef.name", "message": "Required value"},
        {"reason": "FieldValueInvalid", "field": "spec", "message": "Invalid value: name an agentRef"},
    ]
    message = 'Task.triplane.dev "audit" is invalid: [spec.graphRef.name: Required value, spec: Invalid value]'
    found = causes_of({"code": 422, "reason": "Invalid", "message": message, "details": {"causes": causes}})
    assert [(each.layer, each.field) for each in found] == [
        (Layer.SCHEMA, "spec.graphRef.name"),
        (Layer.SCHEMA, "spec"),
    ]


def test_unknown_fields_are_named() -> None:
    message = (
        'Task in version "v1alpha1" cannot be handled as a Task: strict decoding error: unknown field '
        '"spec.objektive", unknown field "spec.modell"'
    )
    assert [each.field for each in causes_of({"code": 400, "reason": "BadRequest", "message": message})] == [
        "spec.objektive",
        "spec.modell",
    ]


def test_a_graph_problem_is_the_authors() -> None:
    cause = one(webhook(Violation("spec.dependsOn[0]", "audit depends on itself (audit → audit); leave the edge out")))
    assert (cause.layer, cause.field, cause.ask) == (Layer.GRAPH, "spec.dependsOn[0]", "whoever writes the object")
    assert cause.message == "audit depends on itself (audit → audit); leave the edge out"


def test_a_policy_is_named_with_its_rule_and_contact() -> None:
    field = policy_field("triplane-system", "nights", "validations[1]")
    cause = one(webhook(Violation(field, "not at night", "PolicyDenied", "platform@example.com")))
    assert (cause.layer, cause.rule) == (Layer.POLICY, "triplane-system/nights validations[1]")
    assert (cause.message, cause.ask) == ("not at night", "platform@example.com")


_names = st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters=";,"), min_size=1, max_size=20)


@given(st.sampled_from(Axis), _names, _names, _names, st.none() | _names)
def test_authority_comes_back_as_it_was_said(axis: Axis, value: str, limit: str, holder: str, ask: str | None) -> None:
    said = exceeding("spec.authority", axis.value, value, limit, holder, ask)
    cause = one(webhook(said))
    assert cause.layer is Layer.AUTHORITY
    assert (cause.axis, cause.value, cause.limit, cause.holder, cause.ask) == (axis.value, value, limit, holder, ask)


def test_all_that_is_wrong_is_listed() -> None:
    field = policy_field("team", "nights", "validations[0]")
    found = causes_of(
        webhook(
            Violation("spec.when", "the condition cannot be used"),
            exceeding("spec.secrets", "secrets", "db", "", "Graph team/g", "alice"),
            Violation(field, "not at night", "PolicyDenied"),
        )
    )
    assert [each.layer for each in found] == [Layer.GRAPH, Layer.AUTHORITY, Layer.POLICY]
    assert found[1].limit == "nothing"


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        pytest.param(
            {
                "code": 500,
                "message": f'Internal error occurred: failed calling webhook "{WEBHOOK}": failed to call webhook: '
                'Post "https://127.0.0.1:7/review/x?timeout=5s": tls: failed to verify certificate: x509: certificate '
                "has expired or is not yet valid",
            },
            "Unreachable",
            id="its certificate has expired",
        ),
        pytest.param(
            {
                "code": 503,
                "message": f'admission webhook "{WEBHOOK}" denied the request: Task audit cannot be checked now: '
                "cannot reach the API server; try again",
            },
            None,
            id="it cannot tell now",
        ),
    ],
)
def test_a_webhook_that_cannot_tell_is_no_verdict_on_the_object(status: dict[str, Any], rule: str | None) -> None:
    cause = one(status)
    assert (cause.layer, cause.rule) == (Layer.WEBHOOK, rule)


def test_somebody_elses_webhook_is_named() -> None:
    cause = one({"code": 403, "message": 'admission webhook "opa.example" denied the request: no'})
    assert (cause.layer, cause.rule, cause.message) == (Layer.SERVER, "opa.example", "no")


def test_what_is_not_recognised_is_passed_on() -> None:
    assert one({"code": 404, "reason": "NotFound", "message": 'namespaces "x" not found'}) == Cause(
        Layer.SERVER, 'namespaces "x" not found', rule="NotFound"
    )


@pytest.mark.parametrize(
    ("status", "reason", "found"),
    [
        pytest.param("True", "AuthorityExceeded", True, id="it is stalled for want of authority"),
        pytest.param("False", "AuthorityExceeded", False, id="it was"),
        pytest.param("True", "NoEligibleAgent", False, id="it is stalled for another reason"),
    ],
)
def test_a_task_that_is_not_launched_says_why(status: str, reason: str, found: bool) -> None:
    said = "axis egress: evil.example:443 is beyond nothing, the limit of Graph team/g; ask alice"
    stalled = {"type": "Stalled", "status": status, "reason": reason, "message": said}
    causes = stopped({"kind": "Task", "status": {"conditions": [stalled]}})
    assert bool(causes) is found
    if causes:
        assert (causes[0].layer, causes[0].axis, causes[0].ask) == (Layer.LAUNCH, "egress", "alice")
        assert next(iter(sentences("Task team/audit", causes))) == "Task team/audit is admitted, but not launched"


def test_people_read_what_where_and_whom_to_ask() -> None:
    cause = one(webhook(exceeding("spec.secrets", "secrets", "db", "", "Graph team/g", "alice")))
    assert list(sentences("Task team/audit", [cause])) == [
        "Task team/audit is denied",
        "  authority (AuthorityExceeded spec.secrets): axis secrets: asked for db; Graph team/g allows nothing",
        "    who can change it: alice",
    ]
    assert list(sentences("Task team/audit", [])) == ["Task team/audit would be admitted"]
