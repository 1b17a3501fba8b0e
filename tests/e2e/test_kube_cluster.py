"""The Cluster port on a real API server, as the operator's own least-privilege account."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.objects import valid
from tests.e2e.private_cluster import PrivateCluster, private_cluster  # noqa: F401 - a fixture

from triplane.adapters.kube import cluster as cluster_module
from triplane.adapters.kube import transport as transport_module
from triplane.adapters.kube.cluster import KubeCluster
from triplane.errors import Conflict, Fenced, Forbidden, InvalidInput, NotFound, Unavailable
from triplane.ports import KubeEvent

pytestmark = pytest.mark.e2e

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
async def operator(private_cluster: PrivateCluster) -> AsyncIterator[KubeCluster]:  # noqa: F811
    cluster = KubeCluster(private_cluster.kubeconfig("operator"))
    yield cluster
    await cluster.close()


@pytest.fixture
async def alice(private_cluster: PrivateCluster) -> AsyncIterator[KubeCluster]:  # noqa: F811
    cluster = KubeCluster(private_cluster.kubeconfig("alice"), field_manager="alice")
    yield cluster
    await cluster.close()


@pytest.fixture
async def admin(private_cluster: PrivateCluster) -> AsyncIterator[KubeCluster]:  # noqa: F811
    cluster = KubeCluster(private_cluster.kubeconfig("admin"), field_manager="admin")
    yield cluster
    await cluster.close()


def name(prefix: str = "g") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def graph(graph_name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Graph", "metadata": {"name": graph_name, "namespace": "team"}, "spec": spec}


def status_of(obj: dict[str, Any], total: int) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Observed",
        "message": "seen",
        "observedGeneration": obj["metadata"]["generation"],
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {
        "observedGeneration": obj["metadata"]["generation"],
        "phase": "Running",
        "tasks": {"total": total, "succeeded": 0, "failed": 0, "active": total},
        "conditions": [condition],
    }


async def test_a_created_object_reads_back_and_creating_it_again_returns_the_standing_one(alice: KubeCluster) -> None:
    made, first = await alice.create(graph(name(), title="one"))
    again, second = await alice.create(graph(made["metadata"]["name"], title="two"))
    assert (first, second) == (True, False)
    assert again["metadata"]["uid"] == made["metadata"]["uid"]
    assert again["spec"]["title"] == "one"
    read = await alice.get("Graph", "team", made["metadata"]["name"])
    assert read is not None
    assert read["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_missing_object_is_none_but_an_unknown_kind_is_an_error(operator: KubeCluster) -> None:
    assert await operator.get("Graph", "team", "no-such-graph") is None
    with pytest.raises(InvalidInput, match="unknown kind 'Grahp'"):
        await operator.get("Grahp", "team", "x")


async def test_a_kind_the_server_does_not_serve_is_never_mistaken_for_a_deleted_object(
    operator: KubeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "API_VERSION", "triplane.dev/v9")
    with pytest.raises(Unavailable, match="custom resource definitions"):
        await operator.get("Graph", "team", "x")
    with pytest.raises(Unavailable, match="custom resource definitions"):
        await operator.list("Graph")


async def test_lists_are_complete_over_many_pages(alice: KubeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "PAGE", 3)
    names = {name("page") for _ in range(10)}
    await asyncio.gather(*(alice.create(graph(one)) for one in names))
    items, version = await alice.list("Graph", "team")
    assert names <= {item["metadata"]["name"] for item in items}
    assert len(items) == len({item["metadata"]["uid"] for item in items})
    assert all(item["kind"] == "Graph" and item["apiVersion"] == "triplane.dev/v1alpha1" for item in items)
    assert int(version) >= max(int(item["metadata"]["resourceVersion"]) for item in items)


async def test_namespaces_are_read_with_the_core_api(operator: KubeCluster) -> None:
    namespace = await operator.get("Namespace", "", "team")
    assert namespace is not None
    assert namespace["kind"] == "Namespace"
    assert await operator.get("Namespace", "", "no-such-namespace") is None


async def test_status_is_written_and_the_same_status_again_changes_nothing(
    operator: KubeCluster, alice: KubeCluster
) -> None:
    made, _ = await alice.create(graph(name()))
    written = await operator.write_status(made, status_of(made, 2))
    assert written["status"]["tasks"]["total"] == 2
    assert written["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    again = await operator.write_status(written, status_of(written, 2))
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]


async def test_a_field_left_out_of_the_status_is_removed(operator: KubeCluster, alice: KubeCluster) -> None:
    made, _ = await alice.create(graph(name()))
    first = await operator.write_status(made, {**status_of(made, 1), "requestedAt": "now"})
    assert first["status"]["requestedAt"] == "now"
    second = await operator.write_status(first, status_of(first, 1))
    assert "requestedAt" not in second["status"]


async def test_a_stale_version_is_a_conflict_and_leaves_the_newer_status(
    operator: KubeCluster, alice: KubeCluster
) -> None:
    made, _ = await alice.create(graph(name()))
    newer = await operator.write_status(made, status_of(made, 1))
    with pytest.raises(Conflict):
        await operator.write_status(made, status_of(made, 9))
    read = await operator.get("Graph", "team", made["metadata"]["name"])
    assert read is not None
    assert read["status"] == newer["status"]


async def test_a_deleted_object_is_not_found(operator: KubeCluster, admin: KubeCluster, alice: KubeCluster) -> None:
    made, _ = await alice.create(graph(name()))
    await _delete(admin, made)
    with pytest.raises(NotFound):
        await operator.write_status(made, status_of(made, 1))


async def test_a_successor_of_the_same_name_is_not_written_to(
    operator: KubeCluster, admin: KubeCluster, alice: KubeCluster
) -> None:
    made, _ = await alice.create(graph(name()))
    await _delete(admin, made)
    successor, _ = await alice.create(graph(made["metadata"]["name"]))
    with pytest.raises(NotFound):
        await operator.write_status(made, status_of(made, 7))
    read = await operator.get("Graph", "team", made["metadata"]["name"])
    assert read is not None
    assert read["status"] == successor["status"]
    assert read["metadata"]["resourceVersion"] == successor["metadata"]["resourceVersion"]


async def test_deleting_takes_exactly_this_incarnation_and_says_whether_it_did(
    operator: KubeCluster, admin: KubeCluster, alice: KubeCluster
) -> None:
    body = valid("Task", "team", name("t"))
    made, _ = await alice.create(body)
    assert await operator.delete(made) is True
    assert await operator.get("Task", "team", made["metadata"]["name"]) is None
    assert await operator.delete(made) is False, "it is gone"
    successor, _ = await alice.create(body)
    assert await operator.delete(made) is False, "another stands there now"
    standing = await operator.get("Task", "team", successor["metadata"]["name"])
    assert standing is not None
    assert standing["metadata"]["uid"] == successor["metadata"]["uid"]
    graph_made, _ = await alice.create(graph(name()))
    with pytest.raises(Forbidden, match="cannot delete resource"):
        await operator.delete(graph_made)


async def test_refusals_carry_the_servers_words(operator: KubeCluster, alice: KubeCluster) -> None:
    with pytest.raises(Forbidden, match="cannot create resource"):
        await operator.create(graph(name()))
    made, _ = await alice.create(graph(name()))
    with pytest.raises(Forbidden, match="status"):
        await alice.write_status(made, status_of(made, 1))
    with pytest.raises(InvalidInput, match=r"spec\.title"):
        await alice.create(graph(name(), title="x" * 300))
    with pytest.raises(InvalidInput, match="unknown field"):
        await alice.create(graph(name(), titel="typo"))
    with pytest.raises(InvalidInput, match=r"status\.phase"):
        await operator.write_status(made, {**status_of(made, 1), "phase": "Dancing"})


async def test_the_fence_is_asked_before_every_write_and_stops_it(private_cluster: PrivateCluster) -> None:  # noqa: F811
    asked = 0

    async def fence() -> None:
        nonlocal asked
        asked += 1
        raise Fenced("epoch 2 has begun")

    cluster = KubeCluster(private_cluster.kubeconfig("operator"), fence=fence)
    try:
        before = await private_cluster.writes()
        with pytest.raises(Fenced):
            await cluster.create(graph(name()))
        with pytest.raises(Fenced):
            await cluster.write_status(
                {"kind": "Graph", "metadata": {"name": "g", "namespace": "team", "uid": "u", "resourceVersion": "1"}},
                {},
            )
        with pytest.raises(Fenced):
            await cluster.emit(event("g", "u", "once"))
        assert asked == 3
        assert await private_cluster.writes() == before
        await cluster.list("Graph")
        assert asked == 3, "reads are not fenced"
    finally:
        await cluster.close()


def event(obj_name: str, uid: str, key: str) -> KubeEvent:
    regarding = {"kind": "Graph", "metadata": {"name": obj_name, "namespace": "team", "uid": uid}}
    return KubeEvent(regarding=regarding, type="Normal", reason="Tested", message="m" * 5000, key=key)


async def test_an_event_is_told_once(
    private_cluster: PrivateCluster,  # noqa: F811
    operator: KubeCluster,
) -> None:
    before = (await private_cluster.writes()).get("POST events", 0)
    for _ in range(3):
        await operator.emit(event("some", "uid-1", "placed/1"))
    await operator.emit(event("some", "uid-1", "placed/2"))
    assert (await private_cluster.writes())["POST events"] == before + 2


async def test_a_lost_event_is_nobodys_error(operator: KubeCluster) -> None:
    regarding = {"kind": "Graph", "metadata": {"name": "g", "namespace": "no-such-namespace", "uid": "u"}}
    await operator.emit(KubeEvent(regarding=regarding, type="Normal", reason="R", message="m", key="k"))


async def test_a_rotated_token_is_picked_up_from_the_file(
    private_cluster: PrivateCluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    good = private_cluster.kubeconfig("operator").read_text()
    config = yaml.safe_load(good)
    config["users"][0]["user"]["token"] = "expired"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    cluster = KubeCluster(path)
    try:
        with pytest.raises(Unavailable, match="Unauthorized"):
            await cluster.list("Graph")
        reading = asyncio.create_task(cluster.list("Graph"))
        await asyncio.sleep(0.3)
        path.write_text(good)
        await reading
        await cluster.list("Graph")
    finally:
        await cluster.close()


async def test_a_server_that_answers_too_late_is_unavailable_and_a_read_survives_its_return(
    private_cluster: PrivateCluster,  # noqa: F811
    operator: KubeCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "REQUEST_SECONDS", 0.5)
    await operator.list("Graph")
    await private_cluster.pause(signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await operator._transport.request("GET", "/api", attempts=2)
        reading = asyncio.create_task(operator.list("Graph"))
        await asyncio.sleep(0.7)
    finally:
        await private_cluster.pause(signal.SIGCONT)
    await reading


async def test_a_restart_of_the_server_is_ridden_out(private_cluster: PrivateCluster, alice: KubeCluster) -> None:  # noqa: F811
    await alice.list("Graph", "team")
    restart = asyncio.create_task(private_cluster.restart())
    names = [name("ride") for _ in range(8)]
    for one in names:
        while True:
            try:
                await alice.create(graph(one))
                break
            except (Unavailable, Forbidden):  # RBAC's caches are empty for a moment after the start
                await asyncio.sleep(0.2)
    await restart
    items, _ = await alice.list("Graph", "team")
    assert sorted(i["metadata"]["name"] for i in items if i["metadata"]["name"] in names) == sorted(names)


async def _delete(admin: KubeCluster, obj: dict[str, Any]) -> None:
    path = f"/apis/triplane.dev/v1alpha1/namespaces/team/graphs/{obj['metadata']['name']}"
    answer = await admin._transport.request("DELETE", path)
    assert answer.ok
