"""Somebody speaks as another user, or as a member of a group that may do more (Kubernetes, "User impersonation").

The weakened check is a role with the verb ``impersonate``, which none of ours has: with it alice is whoever she says.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.e2e.api import Api
from tests.e2e.objects import valid

from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION, REQUESTER

pytestmark = [pytest.mark.e2e, pytest.mark.attacks]

GROUP = "rbac.authorization.k8s.io"


def as_somebody(api: Api, obj: dict[str, Any], user: str, group: str | None = None) -> httpx.Response:
    """Create ``obj`` with another name at the door."""
    headers = {"Impersonate-User": user} | ({"Impersonate-Group": group} if group else {})
    plural = KINDS[obj["kind"]].info.plural
    path = f"/apis/{API_VERSION}/namespaces/{obj['metadata']['namespace']}/{plural}?dryRun=All"
    return api.request("POST", path, json=obj, headers=headers)


@contextmanager
def may_impersonate(admin: Api) -> Iterator[None]:
    """Alice may be anybody."""
    rule = {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]}
    path = f"/apis/{GROUP}/v1"
    role = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": {"name": "anybody"}, "rules": [rule]}
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "anybody"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "anybody"},
        "subjects": [{"kind": "ServiceAccount", "name": "alice", "namespace": "people"}],
    }
    admin.request("POST", f"{path}/clusterroles", json=role).raise_for_status()
    admin.request("POST", f"{path}/clusterrolebindings", json=binding).raise_for_status()
    try:
        yield
    finally:
        admin.request("DELETE", f"{path}/clusterrolebindings/anybody").raise_for_status()
        admin.request("DELETE", f"{path}/clusterroles/anybody").raise_for_status()


def eventually(api: Api, obj: dict[str, Any], user: str, group: str | None, code: int) -> httpx.Response:
    deadline = time.monotonic() + 30
    while (answer := as_somebody(api, obj, user, group)).status_code != code:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer


def test_with_the_verb_alice_reviews_as_bob_and_without_it_she_does_not(
    namespace: str, admin: Api, alice: Api, bob: Api
) -> None:
    review = valid("Review", namespace)
    with may_impersonate(admin):
        answer = eventually(alice, review, bob.username(), "system:authenticated", 201)
        assert answer.json()["metadata"]["annotations"][REQUESTER] == bob.username()
    refused = eventually(alice, review, bob.username(), "system:authenticated", 403)
    assert "cannot impersonate" in refused.json()["message"]


def test_with_the_verb_a_group_opens_every_door_and_without_it_none(namespace: str, admin: Api, alice: Api) -> None:
    policy = valid("Policy", "triplane-system")
    with may_impersonate(admin):
        assert eventually(alice, policy, alice.username(), "system:masters", 201)
    refused = eventually(alice, policy, alice.username(), "system:masters", 403)
    assert "cannot impersonate" in refused.json()["message"]


def test_even_so_the_stamp_says_who_spoke_and_nobody_writes_as_the_operator(
    namespace: str, admin: Api, alice: Api
) -> None:
    """What an administrator who impersonates cannot have: the rules are about names, and hold for every name."""
    forged = valid("Graph", namespace)
    forged["metadata"]["annotations"] = {REQUESTER: "somebody-else"}
    answer = as_somebody(admin, forged, "mallory", "system:masters")
    assert answer.json()["metadata"]["annotations"][REQUESTER] == "mallory"
    session = valid("AgentSession", namespace)
    refused = as_somebody(admin, session, "mallory", "system:masters")
    assert refused.status_code == 403
    assert "written by the operator alone" in refused.json()["message"]
