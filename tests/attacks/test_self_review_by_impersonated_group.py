"""Attack: the producing user makes a Review with the stamp of another, or as a member of a group of reviewers."""

import pytest
from tests.e2e.api import Api, resource
from tests.unit.controllers.people import AGENTS, message, say, status, world

from triplane.api.text import REQUESTER

pytestmark = pytest.mark.attacks

DIGEST = "sha256:" + "a" * 64
SPEC = {
    "taskRef": {"name": "t", "uid": "00000000-0000-0000-0000-000000000001"},
    "round": 1,
    "verdict": "Approve",
    "subjects": [{"name": "report", "digest": DIGEST}],
}


async def test_a_stamp_that_nobody_checks_is_believed() -> None:
    """The operator goes by the stamp: whoever can write it, reviews. Here there is no API server that checks it."""
    made = world(AGENTS, review={"people": ["bob"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    say(made, "bob", name="by-alice-in-truth")
    await made.settle()
    assert status(made)["state"] == "completed"


@pytest.mark.e2e
def test_the_api_server_stamps_who_it_authenticated(namespace: str, alice: Api, bob: Api) -> None:
    forged = resource("Review", namespace, "forged", SPEC)
    forged["metadata"]["annotations"] = {REQUESTER: bob.username()}
    answer = alice.create(forged)
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["annotations"][REQUESTER] == alice.username()


@pytest.mark.e2e
def test_an_impersonated_group_changes_nothing_about_whose_word_it_is(
    namespace: str, admin: Api, alice: Api, bob: Api
) -> None:
    path = f"/apis/triplane.dev/v1alpha1/namespaces/{namespace}/reviews"
    headers = [
        ("Impersonate-User", alice.username()),
        ("Impersonate-Group", "reviewers"),
        ("Impersonate-Group", bob.username()),
    ]
    answer = admin.request("POST", path, headers=headers, json=resource("Review", namespace, "as-a-group", SPEC))
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"]["annotations"][REQUESTER] == alice.username()
    # And nobody may do even that who was not given the right to.
    refused = alice.request("POST", path, headers=headers, json=resource("Review", namespace, "by-alice", SPEC))
    assert refused.status_code == 403


async def test_a_group_that_people_names_is_a_name_like_any_other() -> None:
    made = world(AGENTS, review={"people": ["reviewers", "bob"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    say(made, "carol", name="a-member")
    await made.settle()
    assert status(made)["state"] == "reviewing"
    assert "is by carol, who is not in spec.review.people" in message(made)
