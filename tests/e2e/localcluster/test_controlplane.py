"""The control plane as a thing that is started, killed, started again and stopped."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.e2e.fixtures import ControlPlane
from tests.e2e.localcluster.leftovers import processes_of

from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.identity import identify
from triplane.settings import Settings

pytestmark = pytest.mark.e2e

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager")


@pytest.fixture
async def cluster(short_home: Path) -> AsyncIterator[LocalCluster]:
    made = LocalCluster(Settings(home=short_home), fsync=False)
    yield made
    await made.down()


async def pids(cluster: LocalCluster) -> dict[str, int]:
    found = await cluster.status()
    assert all(component.ready for component in found), found
    return {component.name: component.pid for component in found if component.pid}


async def put(cluster: LocalCluster, name: str) -> str:
    async with cluster.api_server() as server:
        made = await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return str(made["metadata"]["uid"])


async def uid_of(cluster: LocalCluster, name: str) -> str:
    async with cluster.api_server() as server:
        return str((await server.get(f"/api/v1/namespaces/{name}"))["metadata"]["uid"])


async def test_up_is_repeatable_survives_kills_and_down_leaves_no_process(
    cluster: LocalCluster, short_home: Path
) -> None:
    assert await cluster.status() == ()
    await cluster.up()
    first = await pids(cluster)
    assert tuple(first) == NAMES
    assert len(processes_of(short_home)) == 3, "the probe for leftovers below must be able to see them"
    uid = await put(cluster, "kept")

    await cluster.up()
    assert await pids(cluster) == first, "a second up leaves alone what runs"

    for victims in (NAMES[1:2], NAMES):
        before = await pids(cluster)
        for name in victims:
            os.kill(before[name], signal.SIGKILL)
        await cluster.up()
        after = await pids(cluster)
        changed = {name for name in NAMES if after[name] != before[name]}
        # The controller manager may end by itself when its API server goes, and is started again then.
        assert set(victims) <= changed <= {*victims, "kube-controller-manager"}
        assert await uid_of(cluster, "kept") == uid

    assert await cluster.down() is None
    assert processes_of(short_home) == []
    assert [component.pid for component in await cluster.status()] == [None] * 3

    await cluster.up()
    assert await uid_of(cluster, "kept") == uid, "down keeps the data"


def test_secrets_are_readable_by_their_owner_only(control_plane: ControlPlane) -> None:
    home = control_plane.settings.home
    secret = [*home.glob("secrets/*"), *home.rglob("*.key"), home / "cluster/tokens.csv"]
    assert {"kubeconfig-admin", "ca.key", "serving.key"} <= {path.name for path in secret}
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    folders = [home, *(home / name for name in ("cluster", "run", "secrets", "cluster/etcd"))]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


async def test_without_a_token_the_api_server_says_nothing(control_plane: ControlPlane) -> None:
    async with control_plane.cluster.api_server() as server:
        assert (await server.request("GET", "/api")).status_code == 200
        anonymous = await server.request("GET", "/api", headers={"Authorization": ""})
    assert anonymous.status_code == 401


async def test_two_ups_at_once_start_one_control_plane(short_home: Path, cluster: LocalCluster) -> None:
    other = LocalCluster(Settings(home=short_home), fsync=False)
    await asyncio.gather(cluster.up(), other.up())
    assert len(processes_of(short_home)) == 3


async def test_a_process_whose_starter_died_before_the_pidfile_is_found(
    cluster: LocalCluster, short_home: Path
) -> None:
    await cluster.up()
    before = await pids(cluster)
    (short_home / "run" / "etcd.pid").unlink()
    await cluster.down()
    assert identify(before["etcd"]) is None
    assert processes_of(short_home) == []


async def test_a_deleted_namespace_takes_its_objects_along(control_plane: ControlPlane) -> None:
    await put(control_plane.cluster, "doomed")
    async with control_plane.cluster.api_server() as server:
        await server.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "doomed"}})
        assert (await server.request("DELETE", "/api/v1/namespaces/doomed")).is_success
        async with asyncio.timeout(60):
            while (await server.request("GET", "/api/v1/namespaces/doomed")).status_code != 404:
                await asyncio.sleep(0.2)
