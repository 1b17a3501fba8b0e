"""Policies at admission, over a small cluster in memory and the engine's own code."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.simulation.conditions import inline_policies

from triplane.admission.asked import Asked
from triplane.admission.policies import BrokenPolicies, PolicyCheck
from triplane.api.policy import Operation
from triplane.domain.policy import PolicyDecision, PolicyRequest
from triplane.errors import Unavailable


class Known:
    """Policies by namespace."""

    def __init__(self, *policies: dict[str, Any]) -> None:
        self.policies = policies

    def within(self, *namespaces: str) -> Sequence[dict[str, Any]]:
        return [each for each in self.policies if each["metadata"]["namespace"] in namespaces]


class Away(Known):
    def within(self, *namespaces: str) -> Sequence[dict[str, Any]]:
        raise Unavailable("the Policy objects have not been read yet")


class Stored:
    """What the API server holds; counts what is read."""

    def __init__(self, **objects: Mapping[str, Any]) -> None:
        self.objects = objects
        self.read: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.read.append(kind)
        return self.objects.get(kind)


class Notes:
    def __init__(self) -> None:
        self.taken: list[tuple[PolicyDecision, PolicyRequest]] = []

    def note(self, decision: PolicyDecision, request: PolicyRequest) -> None:
        self.taken.append((decision, request))


def policy(rule: str, namespace: str = "team", name: str = "p", **spec: Any) -> dict[str, Any]:
    whole = {"match": {"kinds": ["Task", "Node"]}, "stages": ["Admission"], "validations": [{"expression": rule}]}
    metadata = {"namespace": namespace, "name": name, "uid": f"u-{name}", "generation": 1}
    return {"kind": "Policy", "metadata": metadata, "spec": {**whole, **spec}}


def asked(kind: str = "Task", old: Mapping[str, Any] | None = None, dry_run: bool = False, **spec: Any) -> Asked:
    obj = {
        "kind": kind,
        "metadata": {"name": "t", "namespace": "team"},
        "spec": {"graphRef": {"name": "g"}, "nodeRef": {"name": "n"}, "agentRef": {"name": "a"}, **spec},
    }
    operation = Operation.CREATE if old is None else Operation.UPDATE
    return Asked("u", operation, kind, "team", "t", obj, old, {"username": "alice"}, dry_run)


async def outcome(known: Known, request: Asked, reads: Stored | None = None, notes: Notes | None = None) -> Any:
    return await PolicyCheck(known, inline_policies(), notes or Notes())(request, reads or Stored())


async def test_a_denial_names_policy_rule_message_and_whom_to_ask() -> None:
    rule = {"expression": "false", "message": "no work on Sundays", "reason": "Sunday"}
    found = await outcome(Known(policy("", validations=[rule], contact="ops@example.org")), asked())
    (violation,) = found.violations
    assert violation.field == "Policy team/p validations[0]"
    assert (violation.reason, violation.ask) == ("Sunday", "ops@example.org")
    assert violation.text == "no work on Sundays; ask ops@example.org"


async def test_a_warning_goes_through_and_an_audited_one_is_annotated() -> None:
    found = await outcome(
        Known(policy("false", name="w", enforcement="Warn"), policy("false", name="a", enforcement="Audit")), asked()
    )
    assert found.violations == ()
    assert found.warnings == ("Policy team/w validations[0]: failed expression: false",)
    assert '"policy":"team/a"' in found.audit["policy-violations"]


async def test_nothing_is_read_that_no_expression_names() -> None:
    reads = Stored()
    await outcome(Known(policy("object.spec.graphRef.name == 'g'")), asked(), reads)
    assert reads.read == []


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        pytest.param("graph != null", ["Graph"], id="the Graph"),
        pytest.param("node == null", ["Node"], id="a Node that is not there"),
        pytest.param("agent == null", ["Agent"], id="an Agent that is not there"),
        pytest.param("parent.metadata.name == 'g'", ["Graph", "Node"], id="the parent: the Graph where no Node is"),
    ],
)
async def test_what_is_named_is_read(rule: str, kinds: list[str]) -> None:
    reads = Stored(Graph={"metadata": {"name": "g"}, "spec": {}})
    assert (await outcome(Known(policy(rule)), asked(), reads)).violations == ()
    assert sorted(reads.read) == kinds


async def test_policies_of_the_installation_and_of_the_namespace() -> None:
    known = Known(policy("false", "triplane-system", "s"), policy("false", "team", "t"), policy("false", "other", "o"))
    assert [each.field.split()[1] for each in (await outcome(known, asked())).violations] == [
        "team/t",
        "triplane-system/s",
    ]


async def test_while_policies_are_not_known_nothing_gets_through() -> None:
    with pytest.raises(Unavailable, match="have not been read"):
        await outcome(Away(), asked())


async def test_kinds_no_policy_can_be_about_do_not_wait_for_them() -> None:
    assert (await outcome(Away(), asked("Policy"))).violations == ()


OLD = asked().object


@pytest.mark.parametrize(
    ("request_", "judged"),
    [
        pytest.param(asked(old=OLD, cancel=True), False, id="a cancel"),
        pytest.param(asked(old=OLD, suspend=True), False, id="a suspend"),
        pytest.param(asked(old=OLD), False, id="finalizers or owners"),
        pytest.param(asked(old=OLD, maxRetries=5), True, id="a field that says what is done"),
        pytest.param(asked(old=OLD, cancel=True, maxRetries=5), True, id="that field hidden behind a cancel"),
        pytest.param(
            asked(old={**OLD, "metadata": {**OLD["metadata"], "labels": {"tier": "lead"}}}), True, id="a label"
        ),
    ],
)
async def test_what_only_stops_work_waits_for_no_policy(request_: Asked, judged: bool) -> None:
    assert bool((await outcome(Known(policy("false")), request_)).violations) is judged


async def test_what_was_violated_is_noted_with_who_asked() -> None:
    notes = Notes()
    await outcome(Known(policy("false", enforcement="Audit")), asked(), notes=notes)
    ((decision, request),) = notes.taken
    assert len(decision.violations) == 1
    assert request.user == {"username": "alice"}


async def test_a_broken_policy_is_refused_with_field_and_position() -> None:
    broken = policy("true && nothing")
    request = Asked("u", Operation.CREATE, "Policy", "team", "p", broken, None, {}, False)
    (violation,) = (await BrokenPolicies(inline_policies())(request, Stored())).violations
    assert violation.field == "spec.validations[0].expression"
    assert "1:9: undeclared reference to 'nothing'" in violation.message


async def test_an_edit_that_leaves_the_spec_alone_compiles_nothing() -> None:
    broken = policy("nothing")
    request = Asked("u", Operation.UPDATE, "Policy", "team", "p", broken, broken, {}, False)
    assert (await BrokenPolicies(inline_policies())(request, Stored())).violations == ()


@pytest.mark.parametrize(("namespace", "refused"), [("team", True), ("triplane-system", False)])
async def test_only_the_installation_names_namespaces(namespace: str, refused: bool) -> None:
    named = policy("true", namespace, match={"kinds": ["Task"], "namespaces": ["prod"]})
    request = Asked("u", Operation.CREATE, "Policy", namespace, "p", named, None, {}, False)
    found = (await BrokenPolicies(inline_policies())(request, Stored())).violations
    assert bool(found) is refused
    assert all(each.field == "spec.match.namespaces" for each in found)
