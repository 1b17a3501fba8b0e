"""Static admission on a real API server, while no Triplane process runs: only the API server decides here."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from tests.e2e.api import Api
from tests.e2e.objects import OTHER_DIGEST, operator_review, operator_task, valid

from triplane.api.kinds import KINDS
from triplane.api.text import REQUESTED_AT, REQUESTER

pytestmark = [pytest.mark.e2e, pytest.mark.attacks]

STAMPED = (
    "Graph", "Node", "Workflow", "Task", "Agent", "Harness", "Capability", "Guideline", "Tool", "Policy", "Review",
)  # fmt: skip
WITH_STATUS = [kind for kind, cls in KINDS.items() if cls.info.ready_condition is not None]


@pytest.fixture
def namespace(rules_namespace: str) -> str:
    """Here alice and bob may make every kind people make."""
    return rules_namespace


def requester(answer: httpx.Response) -> str | None:
    assert answer.status_code in (200, 201), answer.text
    return (answer.json()["metadata"].get("annotations") or {}).get(REQUESTER)


def assert_forbidden(answer: httpx.Response, *words: str) -> None:
    """403 with ``reason: Forbidden``, by a policy of ours (not by RBAC), saying the given words."""
    body = answer.json()
    assert (answer.status_code, body.get("reason")) == (403, "Forbidden"), answer.text
    assert "ValidatingAdmissionPolicy" in body["message"], body["message"]
    for word in words:
        assert word in body["message"]


def annotate(obj: Mapping[str, Any], key: str, value: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: value}}}


# -- the requester ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STAMPED)
def test_the_requester_is_stamped(kind: str, namespace: str, alice: Api) -> None:
    assert requester(alice.create(valid(kind, namespace))) == alice.username()


@pytest.mark.parametrize("kind", STAMPED)
def test_a_forged_stamp_is_overwritten_at_creation(kind: str, namespace: str, alice: Api, bob: Api) -> None:
    forged = valid(kind, namespace)
    forged["metadata"]["annotations"] = {REQUESTER: bob.username()}
    assert requester(alice.create(forged)) == alice.username()
    assert requester(alice.get(forged)) == alice.username()


def test_a_forged_stamp_is_overwritten_when_applied_server_side(namespace: str, alice: Api, bob: Api) -> None:
    forged = valid("Agent", namespace)
    forged["metadata"]["annotations"] = {REQUESTER: bob.username()}
    assert requester(alice.apply(forged)) == alice.username()
    assert_forbidden(alice.apply(forged), REQUESTER, "never changes", alice.username(), bob.username())


def test_admins_are_stamped_like_everybody_else(namespace: str, admin: Api, alice: Api) -> None:
    forged = valid("Agent", namespace)
    forged["metadata"]["annotations"] = {REQUESTER: alice.username()}
    assert requester(admin.create(forged)) == admin.username()


@pytest.mark.parametrize("kind", STAMPED)
def test_a_changed_stamp_is_refused(kind: str, namespace: str, alice: Api, bob: Api, admin: Api) -> None:
    obj = valid(kind, namespace)
    alice.create(obj).raise_for_status()
    for caller in (alice, bob, admin):
        assert_forbidden(caller.merge(obj, annotate(obj, REQUESTER, bob.username())), REQUESTER, "never changes")
    assert requester(alice.get(obj)) == alice.username()


@pytest.mark.parametrize("kind", STAMPED)
def test_a_stamp_left_out_of_an_update_stays(kind: str, namespace: str, alice: Api, bob: Api) -> None:
    obj = valid(kind, namespace)
    stored = alice.create(obj).raise_for_status().json()
    obj["metadata"] |= {"resourceVersion": stored["metadata"]["resourceVersion"], "labels": {"new": "label"}}
    assert requester(bob.replace(obj)) == alice.username()
    assert requester(bob.merge(obj, annotate(obj, REQUESTER, None))) == alice.username()


def test_the_operators_task_is_not_stamped_with_the_operator(namespace: str, operator: Api) -> None:
    task = operator_task(namespace, requester="alice")
    assert requester(operator.create(task)) is None
    assert operator.get(task).json()["spec"]["onBehalfOf"] == "alice"


def test_a_task_of_a_node_nobody_is_known_to_have_made_has_no_requester(namespace: str, operator: Api) -> None:
    task = operator_task(namespace)
    del task["spec"]["onBehalfOf"]
    assert requester(operator.create(task)) is None


def test_the_operators_task_may_not_carry_a_contradicting_stamp(namespace: str, operator: Api) -> None:
    task = operator_task(namespace, requester="alice")
    task["metadata"]["annotations"] = {REQUESTER: "bob"}
    assert_forbidden(operator.create(task), "onBehalfOf")


# -- who controls an agent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param("Agent", {"harnessRef": {"name": "mine"}}, id="another users Agent gets another Harness"),
        pytest.param("Agent", {"lifecycle": "Suspended"}, id="another users Agent is suspended"),
        pytest.param("Harness", {"exec": {"program": "mine.py"}}, id="another users Harness runs another file"),
        pytest.param("Capability", {"instructions": "approve all"}, id="another users Capability says otherwise"),
        pytest.param("Task", {"review": {"people": ["me"]}}, id="another users Task gets another reviewer"),
        pytest.param("Node", {"cancel": True}, id="another users Node is cancelled"),
        pytest.param("Guideline", {"text": "approve all"}, id="another users Guideline says otherwise"),
        pytest.param("Tool", {"deny": None, "allow": ["*"]}, id="another users Tool allows more"),
        pytest.param("Policy", {"enforcement": "Audit"}, id="another users Policy only audits"),
        pytest.param(
            "Workflow",
            {"steps": [{"name": "count", "objective": "Approve all", "agentRef": {"name": "counter"}}]},
            id="another users Workflow says otherwise",
        ),
    ],
)
def test_what_another_user_controls_cannot_be_edited(
    kind: str, patch: dict[str, Any], namespace: str, alice: Api, bob: Api, admin: Api
) -> None:
    obj = valid(kind, namespace)
    bob.create(obj).raise_for_status()
    for caller in (alice, admin):
        answer = caller.merge(obj, {"spec": patch})
        assert_forbidden(answer, f"{kind} sample", "is controlled by", bob.username(), caller.username())
    assert alice.get(obj).json()["metadata"]["generation"] == 1
    assert bob.merge(obj, {"spec": patch}).status_code == 200


def test_what_may_be_done_beneath_a_graph_is_its_makers_to_say(
    namespace: str, alice: Api, bob: Api, admin: Api
) -> None:
    wide = {"mayUse": {"egress": ["*"]}}
    graph = valid("Graph", namespace, authority={"mayUse": {"egress": ["api.example.com"]}})
    bob.create(graph).raise_for_status()
    for caller in (alice, admin):
        for patch in (wide, None):
            answer = caller.merge(graph, {"spec": {"authority": patch}})
            assert_forbidden(answer, "spec.authority of Graph sample is controlled by", bob.username())
    assert alice.merge(graph, {"spec": {"title": "Ours"}}).status_code == 200  # the rest is everybody's
    assert bob.merge(graph, {"spec": {"authority": wide}}).status_code == 200


@pytest.mark.parametrize("field", ["authority", "approval"])
def test_what_the_operators_task_may_do_is_the_operators(field: str, namespace: str, alice: Api, operator: Api) -> None:
    task = operator_task(namespace, requester=alice.username())
    operator.create(task).raise_for_status()
    value = {"authority": {"mayUse": {"egress": ["*"]}}, "approval": {"people": ["alice"]}}[field]
    assert_forbidden(alice.merge(task, {"spec": {field: value}}), "edit the Node")


def test_another_user_may_label_an_agent_and_delete_it(namespace: str, alice: Api, bob: Api) -> None:
    agent = valid("Agent", namespace)
    bob.create(agent).raise_for_status()
    assert alice.merge(agent, {"metadata": {"labels": {"team": "red"}}}).status_code == 200
    assert alice.delete(agent).status_code == 200
    assert requester(alice.create(agent)) == alice.username()


# -- what only the operator writes -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_forged_status_is_refused_even_from_admins(
    kind: str, namespace: str, admin: Api, alice: Api, operator: Api
) -> None:
    obj = valid(kind, namespace)
    creator = operator if kind in ("AgentSession", "Artifact") else alice
    before = creator.create(obj).raise_for_status().json()
    forged = {"observedGeneration": 7} | ({"phase": "Succeeded"} if "phase" in before["status"] else {})
    assert_forbidden(admin.merge(obj, {"status": forged}, status=True), "written by the operator alone")
    assert_forbidden(admin.apply({**obj, "status": forged}, status=True), "written by the operator alone")
    assert_forbidden(admin.replace({**before, "status": forged}, status=True), admin.username())
    assert admin.get(obj).json()["status"] == before["status"]
    assert operator.merge(obj, {"status": {"observedGeneration": 1}}, status=True).status_code == 200


def test_users_have_no_access_to_status_at_all(namespace: str, alice: Api) -> None:
    graph = valid("Graph", namespace)
    alice.create(graph).raise_for_status()
    answer = alice.merge(graph, {"status": {"phase": "Succeeded"}}, status=True)
    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
    assert "graphs/status" in answer.json()["message"]


def test_status_sent_with_the_object_is_dropped(namespace: str, alice: Api) -> None:
    graph = {**valid("Graph", namespace), "status": {"phase": "Succeeded", "observedGeneration": 9}}
    assert alice.create(graph).json()["status"]["phase"] == "Pending"
    assert alice.merge(graph, {"status": {"phase": "Succeeded"}}).json()["status"]["phase"] == "Pending"


def test_nobody_observed_anything_while_these_rules_held(namespace: str, alice: Api) -> None:
    """The proof that no operator runs here: an object stays as created."""
    graph = valid("Graph", namespace)
    created = alice.create(graph).raise_for_status().json()
    time.sleep(2)
    assert alice.get(graph).json() == created


@pytest.mark.parametrize("kind", ["AgentSession", "Artifact"])
def test_sessions_and_artifacts_come_from_the_operator_alone(
    kind: str, namespace: str, admin: Api, alice: Api, operator: Api
) -> None:
    obj = valid(kind, namespace)
    assert_forbidden(admin.create(obj), "written by the operator alone", admin.username())
    assert alice.create(obj).status_code == 403
    operator.create(obj).raise_for_status()
    relabelled = {"metadata": {"labels": {"triplane.dev/task": "other"}}}
    assert_forbidden(admin.merge(obj, relabelled), "written by the operator alone")
    assert_forbidden(admin.merge(obj, {"metadata": {"finalizers": ["a.b/c"]}}), "operator alone")
    assert admin.delete(obj).status_code == 200


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"nodeRef": {"name": "node"}}, id="a nodeRef of ones own"),
        pytest.param({"onBehalfOf": "bob"}, id="an onBehalfOf of ones own"),
        pytest.param({"nodeRef": {"name": "node"}, "onBehalfOf": "bob"}, id="both"),
        pytest.param({"step": "count"}, id="a step of ones own"),
        pytest.param({"parameters": {"depth": "3"}}, id="parameters of ones own"),
    ],
)
def test_a_task_on_behalf_of_another_is_refused(forged: dict[str, Any], namespace: str, alice: Api, admin: Api) -> None:
    for caller in (alice, admin):
        answer = caller.create(valid("Task", namespace, **forged))
        assert_forbidden(answer, "nodeRef, onBehalfOf, step and parameters are set by the operator alone")


def test_the_operators_task_cannot_be_edited_or_relabelled(namespace: str, alice: Api, operator: Api) -> None:
    task = operator_task(namespace)
    operator.create(task).raise_for_status()
    assert_forbidden(alice.merge(task, {"spec": {"maxReworks": 9}}), "edit the Node")
    for labels in ({"triplane.dev/node": "other"}, {"triplane.dev/node": None}, {"triplane.dev/graph": "g"}):
        assert_forbidden(alice.merge(task, {"metadata": {"labels": labels}}), "triplane.dev/ labels")
    assert alice.merge(task, {"metadata": {"labels": {"team": "red"}}}).status_code == 200
    now = annotate(task, REQUESTED_AT, "2026-01-01T00:00:00Z")
    assert alice.merge(task, now).status_code == 200


@pytest.mark.parametrize("stop", ["suspend", "cancel"])
def test_only_the_user_it_is_made_for_may_stop_the_operators_task(
    stop: str, namespace: str, alice: Api, bob: Api, admin: Api, operator: Api
) -> None:
    task = operator_task(namespace, requester=alice.username())
    operator.create(task).raise_for_status()
    for caller in (bob, admin):
        assert_forbidden(caller.merge(task, {"spec": {stop: True}}), "only the user on whose behalf")
    assert_forbidden(alice.merge(task, {"spec": {stop: True, "maxReworks": 9}}), "edit the Node")
    assert alice.merge(task, {"spec": {stop: True}}).json()["spec"][stop] is True


def test_a_review_by_an_agent_comes_from_the_operator_alone(
    namespace: str, alice: Api, admin: Api, operator: Api
) -> None:
    review = operator_review(namespace)
    for caller in (alice, admin):
        assert_forbidden(caller.create(review), "sessionRef and agentRef are set by the operator alone")
    operator.create(review).raise_for_status()
    relabelled = {"metadata": {"labels": {"triplane.dev/task": "other"}}}
    assert_forbidden(alice.merge(review, relabelled), "triplane.dev/ labels")


def test_the_operator_cannot_pass_for_a_person(namespace: str, operator: Api) -> None:
    assert_forbidden(operator.create(valid("Review", namespace)), "the operator is none")


@pytest.mark.parametrize("kind", STAMPED)
def test_a_forged_control_annotation_is_refused(kind: str, namespace: str, alice: Api, admin: Api) -> None:
    forged = valid(kind, namespace)
    forged["metadata"]["annotations"] = {"triplane.dev/approved": "yes", REQUESTED_AT: "now"}
    assert_forbidden(alice.create(forged), "triplane.dev/approved", "set by the operator alone")
    del forged["metadata"]["annotations"]["triplane.dev/approved"]
    alice.create(forged).raise_for_status()
    for caller in (alice, admin):
        assert_forbidden(caller.merge(forged, annotate(forged, "triplane.dev/epoch", "1")), "triplane.dev/epoch")
    assert alice.merge(forged, annotate(forged, REQUESTED_AT, "later")).status_code == 200


def test_a_control_annotation_of_the_operator_cannot_be_taken_away(namespace: str, alice: Api, operator: Api) -> None:
    task = operator_task(namespace)
    task["metadata"]["annotations"] = {"triplane.dev/origin": "node"}
    operator.create(task).raise_for_status()
    for value in (None, "other"):
        assert_forbidden(alice.merge(task, annotate(task, "triplane.dev/origin", value)), "triplane.dev/origin")


# -- owners, deletion ------------------------------------------------------------------------------------


def owned_by(obj: dict[str, Any], owner: Mapping[str, Any]) -> dict[str, Any]:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    reference |= {"controller": True, "blockOwnerDeletion": True}
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [reference]}}


def gone(api: Api, obj: Mapping[str, Any], within: float = 60) -> bool:
    deadline = time.monotonic() + within
    while api.get(obj).status_code != 404:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_a_forged_owner_is_refused(namespace: str, alice: Api, admin: Api) -> None:
    graph = alice.create(valid("Graph", namespace)).raise_for_status().json()
    forged = owned_by(valid("Task", namespace), graph)
    for caller in (alice, admin):
        assert_forbidden(caller.create(forged), "owner references to Triplane kinds")
    task = alice.create(valid("Task", namespace)).raise_for_status().json()
    owners = {"metadata": {"ownerReferences": forged["metadata"]["ownerReferences"]}}
    assert_forbidden(alice.merge(task, owners), "owner references to Triplane kinds")


def test_an_owner_that_is_taken_away_is_refused(namespace: str, alice: Api, admin: Api, operator: Api) -> None:
    node = alice.create(valid("Node", namespace)).raise_for_status().json()
    task = valid("Task", namespace)
    step = owned_by(
        {**task, "spec": {**task["spec"], "nodeRef": {"name": node["metadata"]["name"]}, "onBehalfOf": "alice"}}, node
    )
    made = operator.create(step).raise_for_status().json()
    for caller in (alice, admin):
        assert_forbidden(caller.merge(made, {"metadata": {"ownerReferences": []}}), "by the garbage collector alone")
    assert alice.get(made).raise_for_status().json()["metadata"]["ownerReferences"]


def test_a_users_owner_of_another_group_is_none_of_our_business(namespace: str, alice: Api) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "uid": "1-2-3"}}
    assert alice.create(owned_by(valid("Task", namespace), owner)).status_code == 201


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_the_garbage_collector_deletes_what_the_operator_made(
    propagation: str, namespace: str, alice: Api, operator: Api
) -> None:
    task = alice.create(valid("Task", namespace)).raise_for_status().json()
    session = operator.create(owned_by(valid("AgentSession", namespace), task)).raise_for_status().json()
    artifact = operator.create(owned_by(valid("Artifact", namespace), session)).raise_for_status().json()
    path = f"/apis/triplane.dev/v1alpha1/namespaces/{namespace}/tasks/sample"
    alice.request("DELETE", path, json={"propagationPolicy": propagation}).raise_for_status()
    assert gone(alice, artifact)
    assert gone(alice, session)
    assert gone(alice, task)


def test_orphaning_takes_the_owner_away_and_keeps_the_session(namespace: str, alice: Api, operator: Api) -> None:
    task = alice.create(valid("Task", namespace)).raise_for_status().json()
    session = operator.create(owned_by(valid("AgentSession", namespace), task)).raise_for_status().json()
    path = f"/apis/triplane.dev/v1alpha1/namespaces/{namespace}/tasks/sample"
    alice.request("DELETE", path, json={"propagationPolicy": "Orphan"}).raise_for_status()
    assert gone(alice, task)
    assert not alice.get(session).raise_for_status().json()["metadata"].get("ownerReferences")


def test_a_namespace_with_everything_in_it_goes_away(
    make_namespace: Callable[[], str], admin: Api, alice: Api, operator: Api
) -> None:
    namespace = make_namespace()
    task = alice.create(valid("Task", namespace)).raise_for_status().json()
    operator.create(owned_by(valid("AgentSession", namespace), task)).raise_for_status()
    operator.create(valid("Artifact", namespace)).raise_for_status()
    operator.create(operator_review(namespace)).raise_for_status()
    admin.request("DELETE", f"/api/v1/namespaces/{namespace}").raise_for_status()
    deadline = time.monotonic() + 60
    while admin.request("GET", f"/api/v1/namespaces/{namespace}").status_code != 404:
        assert time.monotonic() < deadline, "the namespace is stuck"
        time.sleep(0.5)


# -- immutable for the operator too ----------------------------------------------------------------------


def test_the_operator_cannot_rewrite_what_it_recorded(namespace: str, admin: Api, operator: Api) -> None:
    artifact = valid("Artifact", namespace)
    operator.create(artifact).raise_for_status()
    answer = operator.merge(artifact, {"spec": {"digest": OTHER_DIGEST}})
    assert answer.status_code == 403  # RBAC: the operator may create, not edit
    assert operator.delete(artifact).status_code == 403


# -- roles -----------------------------------------------------------------------------------------------

DANGEROUS = {"*", "escalate", "bind", "impersonate"}


PEOPLES_ROLES = ["triplane-user", "triplane-policy-admin", "triplane-reviewer", "triplane-viewer"]
ROLES = ["triplane-operator", "triplane-gateway", "triplane-admission", *PEOPLES_ROLES]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_has_wildcards_or_reaches_secrets(role: str, admin: Api) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}"
    rules = admin.request("GET", path).raise_for_status().json()["rules"]
    assert rules
    for rule in rules:
        assert not DANGEROUS & {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
        assert "secrets" not in rule["resources"]
        assert "nonResourceURLs" not in rule
        if role in PEOPLES_ROLES:
            assert not [each for each in rule["resources"] if each.endswith("/status")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/api/v1/secrets", id="list secrets"),
        pytest.param("GET", "/api/v1/pods", id="list pods"),
        pytest.param("DELETE", "/apis/triplane.dev/v1alpha1/namespaces/{}/graphs/x", id="delete Graphs"),
        pytest.param("DELETE", "/apis/triplane.dev/v1alpha1/namespaces/{}/workflows/x", id="delete Workflows"),
        pytest.param("PATCH", "/apis/triplane.dev/v1alpha1/namespaces/{}/tasks/x", id="edit Tasks"),
        pytest.param("POST", "/apis/triplane.dev/v1alpha1/namespaces/{}/agents", id="make Agents"),
        pytest.param("POST", "/api/v1/namespaces/triplane-system/serviceaccounts/default/token", id="mint tokens"),
        pytest.param(
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/status.triplane.dev",
            id="remove the policies",
        ),
    ],
)
def test_the_operators_account_may_not(method: str, path: str, namespace: str, operator: Api) -> None:
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
    answer = operator.request(
        method, path.format(namespace), json=None if method in ("GET", "DELETE") else {}, headers=headers
    )
    assert answer.status_code == 403, answer.text


def rbac_forbidden(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and "cannot" in answer.json()["message"]


def test_users_read_policies_and_write_none(make_namespace: Callable[[], str], admin: Api, alice: Api) -> None:
    namespace = make_namespace()
    policy = valid("Policy", namespace)
    assert rbac_forbidden(alice.create(policy))
    admin.create(policy).raise_for_status()
    assert alice.get(policy).status_code == 200
    assert rbac_forbidden(alice.merge(policy, {"spec": {"enforcement": "Audit"}}))
    assert rbac_forbidden(alice.delete(policy))


def bound(admin: Api, role: str, namespace: str | None, person: str = "alice") -> Callable[[], None]:
    """Bind a role to a person, in one namespace or everywhere; returns what takes it away again."""
    kind = "ClusterRoleBinding" if namespace is None else "RoleBinding"
    group = "rbac.authorization.k8s.io"
    scope = "" if namespace is None else f"/namespaces/{namespace}"
    path = f"/apis/{group}/v1{scope}/{kind.lower()}s"
    name = f"{role}-for-{person}"
    body = {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": person, "namespace": "people"}],
    }
    admin.request("POST", path, json=body).raise_for_status()

    def take_away() -> None:
        admin.request("DELETE", f"{path}/{name}").raise_for_status()

    return take_away


def until(answer: Callable[[], httpx.Response], code: int) -> httpx.Response:
    """Roles take a moment to be in force."""
    deadline = time.monotonic() + 30
    while (found := answer()).status_code != code:
        assert time.monotonic() < deadline, found.text
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("kind", [kind for kind in STAMPED if kind != "Policy"])
def test_a_user_everywhere_writes_nothing_that_binds_everybody(kind: str, admin: Api, alice: Api) -> None:
    take_away = bound(admin, "triplane-user", None)
    mine = valid(kind, "triplane-system", f"mine-{kind.lower()}")
    theirs = valid(kind, "triplane-system", f"theirs-{kind.lower()}")
    try:
        admin.create(theirs).raise_for_status()
        until(lambda: alice.get(theirs), 200)
        assert_forbidden(alice.create(mine), "bind every namespace", "triplane-policy-admin")
        assert_forbidden(alice.merge(theirs, {"metadata": {"labels": {"a": "b"}}}), "bind every namespace")
        assert_forbidden(alice.delete(theirs), "bind every namespace")
    finally:
        take_away()
        admin.delete(theirs).raise_for_status()


def test_whoever_makes_the_rules_of_the_installation_may(admin: Api, alice: Api) -> None:
    take_away = bound(admin, "triplane-policy-admin", "triplane-system")
    guideline, policy = (valid(kind, "triplane-system", "alices") for kind in ("Guideline", "Policy"))
    try:
        until(lambda: alice.create(guideline), 201)
        for obj in (guideline, policy):
            assert alice.apply(obj).status_code in (200, 201)
            assert alice.delete(obj).status_code == 200
    finally:
        take_away()


def test_a_reviewer_judges_and_does_nothing_else(make_namespace: Callable[[], str], admin: Api, alice: Api) -> None:
    admin.request("POST", "/api/v1/namespaces", json={"metadata": {"name": "judged"}}).raise_for_status()
    take_away = bound(admin, "triplane-reviewer", "judged")
    review = valid("Review", "judged")
    try:
        until(lambda: alice.create(review), 201)
        assert requester(alice.get(review)) == alice.username()
        assert rbac_forbidden(alice.merge(review, {"metadata": {"labels": {"a": "b"}}}))
        assert rbac_forbidden(alice.delete(review))
        for kind in STAMPED:
            assert alice.list(kind, "judged").status_code == 200
            if kind != "Review":
                assert rbac_forbidden(alice.create(valid(kind, "judged")))
    finally:
        take_away()
        admin.request("DELETE", "/api/v1/namespaces/judged")


def test_the_policies_of_the_api_server_are_well_typed(admin: Api) -> None:
    """The API server checks their expressions against our schemas in the background, and only warns."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    warned = {
        policy["metadata"]["name"]: found
        for policy in admin.request("GET", path).raise_for_status().json()["items"]
        if (found := (policy.get("status") or {}).get("typeChecking", {}).get("expressionWarnings"))
    }
    assert not warned
