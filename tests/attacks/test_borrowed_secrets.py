"""Secrets by way of the gateway: with one step of ``gateway/secrets.py`` taken away each of these gets the value, with
all of them none does.
"""

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer, serving
from tests.integration.gateway.world import OPERATOR, RUNNER, Run, World, order, running

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.gateway import secrets as under_test
from triplane.gateway.auth import run_of
from triplane.gateway.people import People
from triplane.wiring import GatewayBackends

pytestmark = pytest.mark.attacks
VALUE = "tok-5f1d8c3e-value"
SECRET = "/api/v1/namespaces/team/secrets/github"
TASK = "/apis/triplane.dev/v1alpha1/namespaces/team/tasks/work"
USE = {"name": "github", "key": "token", "env": "GITHUB_TOKEN"}


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    async with serving(tmp_path) as made:
        made.objects[SECRET] = secret(token=VALUE)
        made.objects[TASK] = task("alice")
        made.grant("alice", "get", "secrets/github", "team")
        yield made


@pytest.fixture
async def world(apiserver: FakeApiServer, tmp_path: Path) -> AsyncIterator[World]:
    shared = MemoryLog.create()
    log = MemoryEventLog(shared, writer="gateway")
    backends = GatewayBackends(
        log=log,
        checkpoints=MemoryCheckpointStore(shared),
        content=MemoryContentStore(),
        sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(),
        graph=MemoryGraphStore(),
    )
    async with running(backends, tmp_path, kubeconfig=apiserver.kubeconfig) as made:
        yield made


def secret(**data: str | bytes) -> dict[str, Any]:
    octets = {name: value.encode() if isinstance(value, str) else value for name, value in data.items()}
    return {
        "metadata": {"name": "github", "uid": "secret-uid", "resourceVersion": "77"},
        "data": {name: base64.b64encode(value).decode() for name, value in octets.items()},
    }


def task(requester: str | None, uid: str = "t-1", **spec: Any) -> dict[str, Any]:
    annotations = {} if requester is None else {"triplane.dev/requester": requester}
    return {"metadata": {"name": "work", "uid": uid, "annotations": annotations}, "spec": spec}


def secret_order(*uses: dict[str, str], granted: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        **order(),
        "task": {"name": "work"},
        "secrets": list(uses or (USE,)),
        "authority": {"secrets": ["github"] if granted is None else granted},
        **more,
    }


async def ask(world: World, run: Run, token: str | None = None, *, uid: str = "s-1", number: int = 1) -> httpx.Response:
    return await world.call("GET", f"/v1/sessions/{uid}/runs/{number}/secrets", token or run.token)


def refused(answer: httpx.Response) -> tuple[str, str]:
    assert VALUE not in answer.text
    assert answer.status_code >= 400, answer.text
    return answer.json()["error"]["reason"], answer.json()["error"]["message"]


async def test_a_run_gets_what_its_requester_may_get(world: World, apiserver: FakeApiServer) -> None:
    run = await world.claimed(work_order=secret_order())
    answer = await ask(world, run)
    assert answer.status_code == 200, answer.text
    given = {**USE, "value": VALUE, "uid": "secret-uid", "resourceVersion": "77"}
    assert answer.json() == {"secrets": [given], "tools": {}}
    assert answer.headers["cache-control"] == "no-store"
    review = apiserver.asked[-1]
    assert review["spec"] == {
        "user": "alice",
        "groups": ["system:authenticated"],
        "resourceAttributes": {
            "group": "", "verb": "get", "resource": "secrets", "namespace": "team", "name": "github"
        },
    }  # fmt: skip


async def test_tools_get_their_own_and_the_harness_does_not_see_them(world: World) -> None:
    stdio = {"name": "repo", "spec": {"stdio": {"program": "server.py", "secrets": [USE]}}}
    token = {key: USE[key] for key in ("name", "key")}
    http = {"name": "web", "spec": {"http": {"url": "https://mcp.example/", "token": token}}}
    run = await world.claimed(work_order=secret_order(tools=[stdio, http]) | {"secrets": []})
    answer = (await ask(world, run)).json()
    assert answer["secrets"] == []
    assert {tool: [item["value"] for item in items] for tool, items in answer["tools"].items()} == {
        "repo": [VALUE],
        "web": [VALUE],
    }


async def test_whoever_writes_a_task_does_not_borrow_the_gateway_s_rights(
    world: World, apiserver: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mallory may make Tasks and not read the Secret; the gateway may read it."""
    apiserver.objects[TASK] = task("mallory")
    run = await world.claimed(work_order=secret_order())
    with monkeypatch.context() as weakened:

        async def everybody(self: People, subject: object, **_: str) -> bool:
            return True

        weakened.setattr(People, "may", everybody)
        assert VALUE in (await ask(world, run)).text
    apiserver.read.clear()
    reason, message = refused(await ask(world, run))
    assert reason == "SecretForbidden"
    assert "user mallory, who made the Task, may not get Secret team/github" in message
    assert SECRET not in apiserver.read, "it was not so much as read"


async def test_a_step_s_right_is_that_of_who_made_the_node(world: World, apiserver: FakeApiServer) -> None:
    """The operator stamps nothing of its own, and its rights do not count."""
    operator = "system:serviceaccount:triplane-system:triplane-operator"
    apiserver.grant(operator, "get", "secrets/github", "team")
    apiserver.objects[TASK] = task(operator, onBehalfOf="mallory")
    run = await world.claimed(work_order=secret_order())
    assert refused(await ask(world, run))[0] == "SecretForbidden"
    apiserver.objects[TASK] = task(operator, onBehalfOf="alice")
    assert VALUE in (await ask(world, run)).text


async def test_a_service_account_has_the_rights_of_its_groups_and_a_person_no_group_at_all(
    world: World, apiserver: FakeApiServer
) -> None:
    apiserver.rights.clear()
    apiserver.grant("system:serviceaccounts:ci", "get", "secrets/github", "team")
    apiserver.objects[TASK] = task("system:serviceaccount:ci:builder")
    run = await world.claimed(work_order=secret_order())
    assert VALUE in (await ask(world, run)).text
    for name in ("system:serviceaccounts:ci", "system:serviceaccount:ci", "system:serviceaccount:other:builder",
                 "system:serviceaccount:ci:builder:x", "alice"):  # fmt: skip
        groups = under_test.groups_of(name)
        assert "system:serviceaccounts:ci" not in groups
        assert "system:masters" not in groups


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(None, id="it was deleted"),
        pytest.param(task("alice", uid="t-2"), id="another was made with its name, by somebody with the right"),
        pytest.param(
            {**task("alice"), "metadata": {**task("alice")["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}},
            id="it is being deleted",
        ),
    ],
)
async def test_a_task_that_is_gone_gives_no_right(
    world: World, apiserver: FakeApiServer, now: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.claimed(work_order=secret_order())
    with monkeypatch.context() as weakened:

        async def believed(gateway: object, offer: object) -> object:
            return under_test.Subject("alice", ())

        weakened.setattr(under_test, "_requester", believed)
        assert VALUE in (await ask(world, run)).text
    apiserver.objects.pop(TASK)
    if now is not None:
        apiserver.objects[TASK] = now
    assert refused(await ask(world, run))[0] == "SecretUnavailable"


async def test_a_right_that_is_withdrawn_binds_at_once(world: World, apiserver: FakeApiServer) -> None:
    """Unlike answers about people, which are kept for a minute."""
    run = await world.claimed(work_order=secret_order())
    assert VALUE in (await ask(world, run)).text
    apiserver.rights.clear()
    assert refused(await ask(world, run))[0] == "SecretForbidden"


async def test_authority_that_was_frozen_bounds_it_whatever_the_requester_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.claimed(work_order=secret_order(granted=["git", "github-other", "gith?b"]))
    with monkeypatch.context() as weakened:
        weakened.setattr(under_test, "_within_authority", lambda use, order: None)
        assert VALUE in (await ask(world, run)).text
    reason, message = refused(await ask(world, run))
    assert reason == "SecretForbidden"
    assert "Limit of axis secrets: git, github-other, gith?b" in message


@pytest.mark.parametrize(
    "without",
    [{"authority": {}}, {"authority": {"secrets": []}}, {"authority": None}],
    ids=["no axis", "an empty axis", "no authority"],
)
async def test_authority_that_says_nothing_grants_nothing(world: World, without: dict[str, Any]) -> None:
    run = await world.claimed(work_order=secret_order() | without)
    assert refused(await ask(world, run))[0] == "SecretForbidden"


async def test_what_is_not_in_the_work_order_cannot_be_asked_for(world: World, apiserver: FakeApiServer) -> None:
    apiserver.objects["/api/v1/namespaces/team/secrets/other"] = secret(token="not-yours-value")
    apiserver.grant("alice", "get", "secrets/other", "team")
    run = await world.claimed(work_order=secret_order(granted=["**"]))
    for query in ("?name=other", "?secrets=other", "/other"):
        answer = await world.call("GET", f"/v1/sessions/s-1/runs/1/secrets{query}", run.token)
        assert "not-yours" not in answer.text


async def test_the_token_of_another_run_or_session_opens_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await world.claimed(work_order=secret_order())
    other = await world.claimed("s-2", work_order=order(), instance="i-2")
    with monkeypatch.context() as weakened:
        weakened.setattr(under_test, "require_run", lambda caller, uid, number: type(caller)(uid, number))
        assert VALUE in (await ask(world, run, other.token)).text
    assert refused(await ask(world, run, other.token))[0] == "Forbidden"
    assert refused(await ask(world, run, run.token, number=2))[0] == "Forbidden"
    for token in (OPERATOR, RUNNER, ALICE):
        assert refused(await ask(world, run, token))[0] == "Forbidden"
    assert (await world.call("GET", "/v1/sessions/s-1/runs/1/secrets", None)).status_code == 401


@pytest.mark.parametrize("end", ["finished", "lost", "revoked"])
async def test_a_token_opens_nothing_after_its_run(world: World, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await world.started(work_order=secret_order())
    assert VALUE in (await ask(world, run)).text
    match end:
        case "finished":
            assert (await run.finish(report=b"# Report\n")).status_code == 200
        case "lost":
            await world.call("POST", "/v1/runners/local/hello", RUNNER, json={"instance": "i-9"})
        case _:
            await world.backends.sessions.revoke("s-1", "AuthorityNarrowed")
    with monkeypatch.context() as weakened:
        weakened.setattr(under_test, "live_run_of", run_of)
        assert VALUE in (await ask(world, run)).text
    assert refused(await ask(world, run))[0] == "RunEnded"


async def test_a_run_that_is_revoked_while_the_api_server_is_asked_gets_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.started(work_order=secret_order())
    asked = People.may

    async def slow(self: People, subject: Any, **attributes: str) -> bool:
        await world.backends.sessions.revoke("s-1", "AuthorityNarrowed")
        return await asked(self, subject, **attributes)

    monkeypatch.setattr(People, "may", slow)
    assert refused(await ask(world, run))[0] == "RunEnded"


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        pytest.param({SECRET: None}, "SecretUnavailable", "Secret team/github does not exist", id="no such Secret"),
        pytest.param({SECRET: secret(other="x")}, "SecretUnavailable", "key token of Secret", id="no such key"),
        pytest.param({SECRET: secret(token=b"\xff\xfe")}, "SecretUnavailable", "is not UTF-8 text", id="octets"),
        pytest.param({SECRET: secret(token="a\0b")}, "SecretUnavailable", "holds NUL", id="a NUL"),
        pytest.param({SECRET: secret(token="a" * 70_000)}, "SecretUnavailable", "65536 octets", id="too large"),
        pytest.param({TASK: task(None)}, "SecretForbidden", "nobody is stamped", id="nobody stamped"),
    ],
)
async def test_what_cannot_be_given_is_named(
    world: World, apiserver: FakeApiServer, change: dict[str, Any], reason: str, says: str
) -> None:
    for path, found in change.items():
        apiserver.objects.pop(path)
        if found is not None:
            apiserver.objects[path] = found
    run = await world.claimed(work_order=secret_order())
    found_reason, message = refused(await ask(world, run))
    assert found_reason == reason
    assert says in message


async def test_an_account_without_the_right_says_whose_role_is_missing(world: World, apiserver: FakeApiServer) -> None:
    apiserver.closed.add(SECRET)
    run = await world.claimed(work_order=secret_order())
    reason, message = refused(await ask(world, run))
    assert reason == "SecretForbidden"
    assert "the gateway's account may not get Secret team/github: an administrator binds it a Role" in message


async def test_one_that_is_refused_refuses_them_all(world: World, apiserver: FakeApiServer) -> None:
    run = await world.claimed(work_order=secret_order(USE, {**USE, "name": "other", "env": "OTHER"}, granted=["**"]))
    assert refused(await ask(world, run))[0] == "SecretForbidden"


async def test_no_value_is_in_log_or_store(
    world: World, apiserver: FakeApiServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    run = await world.claimed(work_order=secret_order())
    assert VALUE in (await ask(world, run)).text
    said = capfd.readouterr()
    assert "secrets given to a run" in said.out + said.err + caplog.text
    assert VALUE not in said.out + said.err
    entries = await world.backends.log.query()
    kept = b"".join([item.octets for item in entries])
    async for digest in world.backends.content.list_digests():
        kept += await world.blob(digest)
    assert VALUE.encode() not in kept


async def test_a_run_without_secrets_costs_the_api_server_nothing(world: World, apiserver: FakeApiServer) -> None:
    run = await world.claimed()
    assert (await ask(world, run)).json() == {"secrets": [], "tools": {}}
    assert apiserver.asked == []
    assert apiserver.read == []
