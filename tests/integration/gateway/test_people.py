"""People: who they are and what they may do is the API server's to say."""

import pytest
from tests.integration.gateway.fake_apiserver import ALICE, BOB, STRANGER, FakeApiServer
from tests.integration.gateway.world import REPORT, World, sha256

from triplane.ports import ResourceRecord


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        pytest.param("GET", "/v1/log/head", ("get", "graphs"), id="the head of the log"),
        pytest.param("GET", "/v1/log/entries", ("get", "graphs"), id="entries"),
        pytest.param("GET", "/v1/sessions/s-1", ("get", "agentsessions"), id="a session"),
        pytest.param("GET", "/v1/sessions/s-1/journal", ("get", "agentsessions"), id="a journal"),
        pytest.param("GET", "/v1/resources?kind=Task", ("list", "tasks"), id="resources"),
        pytest.param("GET", f"/v1/blobs/{sha256(REPORT)}", ("get", "artifacts"), id="a blob"),
        pytest.param("POST", "/v1/blobs", ("create", "tasks"), id="storing a blob"),
    ],
)
async def test_a_person_needs_the_right_on_the_resource_concerned(
    world: World, apiserver: FakeApiServer, method: str, path: str, right: tuple[str, str]
) -> None:
    await world.offer()
    await world.backends.content.store(REPORT)
    denied = await world.call(method, path, ALICE)
    assert (denied.status_code, denied.json()["error"]["reason"]) == (403, "Forbidden")
    assert f"{right[0]} {right[1]}.triplane.dev" in denied.json()["error"]["message"]
    apiserver.grant("bob", *right)
    assert (await world.call(method, path, BOB)).status_code in (200, 201)


async def test_an_unknown_token_is_nobody(world: World) -> None:
    answer = await world.call("GET", "/v1/log/head", STRANGER)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_right_in_one_namespace_opens_that_namespace_only(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "get", "graphs", "team")
    assert (await world.call("GET", "/v1/log/entries?namespace=team", ALICE)).status_code == 200
    assert (await world.call("GET", "/v1/log/entries?namespace=other", ALICE)).status_code == 403
    assert (await world.call("GET", "/v1/log/entries", ALICE)).status_code == 403


async def test_a_namespace_opens_only_the_blobs_that_were_put_in_it(world: World, apiserver: FakeApiServer) -> None:
    for right in (("get", "artifacts"), ("create", "tasks")):
        apiserver.grant("alice", *right, "team")
    foreign = await world.put_in("other", b"foreign")
    nobodys = await world.backends.content.store(b"nobody's")
    run = await world.started()
    made = await run.put(b"made by a run of team")
    put = await world.call("POST", "/v1/blobs?namespace=team", ALICE, content=b"mine")
    mine = put.json()["digest"]
    assert (await world.call("GET", f"/v1/blobs/{mine}?namespace=team", ALICE)).content == b"mine"
    assert (await world.call("GET", f"/v1/blobs/{made}?namespace=team", ALICE)).content == b"made by a run of team"
    for digest, query in (
        (foreign, "?namespace=team"), (foreign, "?namespace=other"), (foreign, ""), (nobodys, "?namespace=team"),
        (sha256(b"never stored"), "?namespace=team"), (mine, ""),
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            assert (await world.call(method, f"/v1/blobs/{digest}{query}", ALICE)).status_code == 403
    refused = await world.call("GET", f"/v1/blobs/{foreign}?namespace=team", ALICE)
    assert "`triplane blob put -n team`" in refused.json()["error"]["message"]
    apiserver.grant("bob", "get", "artifacts")
    for query in ("", "?namespace=team"):
        assert (await world.call("GET", f"/v1/blobs/{nobodys}{query}", BOB)).content == b"nobody's"


async def test_naming_a_foreign_blob_in_a_task_does_not_open_it(world: World, apiserver: FakeApiServer) -> None:
    """A digest is a name, not a right: neither records that name it nor a PUT of other octets under it help."""
    for right in (("get", "artifacts"), ("create", "tasks")):
        apiserver.grant("alice", *right, "team")
    foreign = await world.put_in("other", b"foreign")
    for kind, spec in (("Task", {"inputs": [{"name": "in", "digest": foreign}]}), ("Artifact", {"digest": foreign})):
        await world.backends.graph.create(
            ResourceRecord(f"uid-{kind}", kind, "team", "a", 1, {}, spec, requester=None, seq=2)
        )
    forged = await world.call("PUT", f"/v1/blobs/{foreign}?namespace=team", ALICE, content=b"guessed")
    assert forged.json()["error"]["reason"] == "DigestMismatch"
    assert (await world.call("GET", f"/v1/blobs/{foreign}?namespace=team", ALICE)).status_code == 403
    await world.call("PUT", f"/v1/blobs/{foreign}?namespace=team", ALICE, content=b"foreign")
    assert (await world.call("GET", f"/v1/blobs/{foreign}?namespace=team", ALICE)).content == b"foreign"


async def test_a_blob_is_put_only_where_the_person_may_create_tasks(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "create", "tasks", "team")
    for query in ("", "?namespace=other"):
        assert (await world.call("POST", f"/v1/blobs{query}", ALICE, content=b"x")).status_code == 403
    assert not await world.backends.content.exists(sha256(b"x"))
    apiserver.grant("bob", "create", "tasks")
    assert (await world.call("POST", "/v1/blobs", BOB, content=b"x")).status_code == 201
    assert not await world.backends.sessions.owns_blob("team", sha256(b"x"))


async def test_the_answer_to_a_put_does_not_tell_what_other_namespaces_hold(
    world: World, apiserver: FakeApiServer
) -> None:
    apiserver.grant("alice", "create", "tasks", "team")
    digest = await world.put_in("other", b"guessed right")
    path = f"/v1/blobs/{digest}?namespace=team"
    answers = [await world.call("PUT", path, ALICE, content=b"guessed right") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]


async def test_answers_are_kept_so_that_the_api_server_is_asked_once(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "get", "graphs")
    for _ in range(5):
        assert (await world.call("GET", "/v1/log/head", ALICE)).status_code == 200
    assert [body["kind"] for body in apiserver.asked] == ["TokenReview", "SubjectAccessReview"]


async def test_what_the_gateway_asks_names_the_user_as_the_api_server_did(
    world: World, apiserver: FakeApiServer
) -> None:
    await world.call("GET", "/v1/log/entries?namespace=team", ALICE)
    assert apiserver.asked[1]["spec"] == {
        "user": "alice",
        "uid": "uid-alice",
        "groups": ["people"],
        "extra": {},
        "resourceAttributes": {
            "group": "triplane.dev",
            "verb": "get",
            "resource": "graphs",
            "namespace": "team",
        },
    }


async def test_while_the_api_server_fails_people_are_told_to_come_back(world: World, apiserver: FakeApiServer) -> None:
    apiserver.down = True
    answer = await world.call("GET", "/v1/log/head", ALICE)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "Unavailable")
    apiserver.down = False
    apiserver.grant("alice", "get", "graphs")
    assert (await world.call("GET", "/v1/log/head", ALICE)).status_code == 200


async def test_a_renewed_account_token_is_read_again_from_the_kubeconfig(
    world: World, apiserver: FakeApiServer
) -> None:
    await world.call("GET", "/v1/log/head", ALICE)
    text = apiserver.kubeconfig.read_text()
    apiserver.own = "renewed-token"
    apiserver.kubeconfig.write_text(text.replace("gateway-account-token", "renewed-token"))
    apiserver.grant("bob", "get", "graphs")
    assert (await world.call("GET", "/v1/log/head", BOB)).status_code == 200


async def test_a_service_is_no_person(world: World) -> None:
    answer = await world.call("GET", "/v1/log/entries")
    assert answer.status_code == 403
    assert "for people" in answer.json()["error"]["message"]
