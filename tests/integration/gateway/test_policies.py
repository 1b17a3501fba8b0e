"""Violations the admission webhook saw, over HTTP: who may tell them, what is logged, and what is not believed."""

import hashlib
from typing import Any

import pytest
from tests.integration.gateway.world import OPERATOR, RUNNER, World

from triplane.audit.model import EventFilter

TOKEN = "admission-token"
PATH = "/v1/policies/violations"


def violation(**more: Any) -> dict[str, Any]:
    plain = {
        "policy": "p", "policyNamespace": "team", "policyUid": "u-p", "policyGeneration": 2, "enforcement": "Audit",
        "stage": "Admission", "operation": "CREATE", "kind": "Task", "namespace": "team", "name": "t",
        "rule": "validations[0]", "reason": "TooMuch", "message": "no more than 3", "spec": {"objective": "x"},
        "username": "alice", "userUid": "1",
    }  # fmt: skip
    return {**plain, **more}


@pytest.fixture
async def told(world: World) -> World:
    await world.backends.accounts.put_token("admission", "admission", hashlib.sha256(TOKEN.encode()).hexdigest())
    return world


async def logged(world: World) -> list[dict[str, Any]]:
    found = await world.backends.log.query(EventFilter(types=frozenset({"policy.violated"})))
    return [dict(each.entry) for each in found]


async def test_it_is_logged_with_the_principal_of_who_asked(told: World) -> None:
    answer = await told.call("POST", PATH, TOKEN, json={"violations": [violation()]})
    assert answer.json() == {"recorded": 1}
    (entry,) = await logged(told)
    assert entry["subject"]["name"] == "p"
    assert entry["subject"]["generation"] == 2
    principal = await told.backends.accounts.principal("alice", "1")
    assert entry["actor"] == principal.id
    assert "alice" not in str(entry)
    for digest in entry["blobs"]:
        assert await told.backends.content.exists(digest)


async def test_told_twice_it_is_logged_once(told: World) -> None:
    for _ in range(2):
        answer = await told.call("POST", PATH, TOKEN, json={"violations": [violation(), violation()]})
        assert answer.status_code == 200
    assert len(await logged(told)) == 1


@pytest.mark.parametrize("token", [OPERATOR, RUNNER])
async def test_nobody_else_tells(told: World, token: str) -> None:
    answer = await told.call("POST", PATH, token, json={"violations": [violation()]})
    assert answer.status_code == 403
    assert await logged(told) == []


async def test_its_token_opens_nothing_else(told: World) -> None:
    assert (await told.call("POST", "/v1/principals", TOKEN, json={"username": "x"})).status_code == 403
    assert (await told.call("GET", "/v1/blobs", TOKEN)).status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"enforcement": "Allow"}, id="an enforcement there is not"),
        pytest.param({"operation": "LAUNCH"}, id="a launch: the operator records those"),
        pytest.param({"reason": "some prose"}, id="prose for a reason"),
        pytest.param({"message": "x" * 2000}, id="a message too long"),
        pytest.param({"colour": "red"}, id="a member nobody knows"),
    ],
)
async def test_what_makes_no_sense_is_refused(told: World, wrong: dict[str, Any]) -> None:
    answer = await told.call("POST", PATH, TOKEN, json={"violations": [violation(**wrong)]})
    assert answer.status_code == 422
    assert await logged(told) == []
