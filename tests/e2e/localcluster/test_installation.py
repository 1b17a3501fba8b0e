"""A whole installation: up, kills, up again, down; and an up that is interrupted or cannot succeed."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.e2e.localcluster.leftovers import processes_of

from triplane.api.text import API_VERSION
from triplane.errors import Unavailable
from triplane.localcluster import installation
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.identity import identify
from triplane.localcluster.webhook import address
from triplane.settings import Settings

pytestmark = pytest.mark.e2e

ALL = ("etcd", "kube-apiserver", "kube-controller-manager", "postgres", "admission", "gateway", "operator", "runner")


@pytest.fixture
async def settings(short_home: Path) -> AsyncIterator[Settings]:
    made = Settings(home=short_home)
    yield made
    await installation.down(made)


async def pids(settings: Settings) -> dict[str, int | None]:
    found = await installation.status(settings)
    return {process.name: process.pid for process in found.processes}


async def until_ready(settings: Settings) -> installation.InstallationStatus:
    async with asyncio.timeout(90):
        while True:
            found = await installation.status(settings)
            if found.ready:
                return found
            await asyncio.sleep(0.5)


async def until_ended(pid: int | None) -> None:
    async with asyncio.timeout(10):
        while pid is not None and (identity := identify(pid)) is not None and identity.pid == pid:
            await asyncio.sleep(0.01)


async def stranger(port: int) -> socket.socket:
    """Takes the port as soon as the killed process, whose threads end one by one, has let go of it."""
    async with asyncio.timeout(1):
        while True:
            try:
                return socket.create_server(("127.0.0.1", port), reuse_port=False)
            except OSError:
                await asyncio.sleep(0.005)


async def until_refused(server: ApiServer) -> None:
    """Until the webhook is asked again: a Workflow that is a cycle is refused by it."""
    step = {"name": "a", "objective": "x", "agentRef": {"name": "b"}, "dependsOn": ["a"]}
    workflow = {"apiVersion": API_VERSION, "kind": "Workflow", "metadata": {"name": "loop"}, "spec": {"steps": [step]}}
    async with asyncio.timeout(60):
        while True:
            answer = await server.request(
                "POST", f"/apis/{API_VERSION}/namespaces/work/workflows?dryRun=All", json=workflow
            )
            if answer.status_code == 422:
                return
            # It fails closed, or the API server, which was killed too, does not serve the kind again yet.
            assert answer.status_code in (500, 503), answer.text
            await asyncio.sleep(0.2)


async def test_what_is_killed_starts_again_and_down_leaves_nothing(settings: Settings) -> None:
    assert not (await installation.status(settings)).ready
    told: list[str] = []
    await installation.up(settings, namespaces=["work"], fsync=False, progress=told.append)
    assert (await installation.status(settings)).ready
    assert "operator ready" in told
    first = await pids(settings)
    assert tuple(first) == ALL

    # A second up leaves everything alone; the namespace was made and opened.
    await installation.up(settings, namespaces=["work"], fsync=False)
    assert await pids(settings) == first
    async with LocalCluster(settings).api_server() as server:
        assert (await server.get("/api/v1/namespaces/work"))["status"]["phase"] == "Active"

    # The supervisor starts again what is killed, and nothing else.
    victims = ("kube-apiserver", "postgres", "admission", "gateway", "operator", "runner")
    for name in victims:
        pid = first[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    # Meanwhile a stranger takes the webhook's port: it listens elsewhere, and the API server is told.
    port = urlsplit(address(settings.run)).port
    assert port is not None
    await until_ended(first["admission"])
    with await stranger(port):
        await asyncio.sleep(1.0)
        found = await until_ready(settings)
        assert urlsplit(address(settings.run)).port != port
        async with LocalCluster(settings).api_server() as server:
            await until_refused(server)
    assert found.supervisor is not None
    assert set(victims) <= set(found.supervisor.restarts)
    second = await pids(settings)
    assert {name for name in ALL if second[name] != first[name]} == set(victims)

    # A killed supervisor's processes are taken over.
    os.kill(found.supervisor.pid, signal.SIGKILL)
    await asyncio.sleep(0.3)
    assert (await installation.status(settings)).supervisor is None
    assert await pids(settings) == second
    await installation.up(settings, fsync=False)
    assert (await installation.status(settings)).ready
    assert await pids(settings) == second

    assert len(processes_of(settings.home)) >= len(ALL) + 1, "the probe below must be able to see them"
    await installation.down(settings)
    assert processes_of(settings.home) == []
    assert set((await pids(settings)).values()) == {None}

    # What was stopped starts again: the webhook that etcd still holds, and that refuses while it is away, included.
    await installation.up(settings, fsync=False)
    assert (await installation.status(settings)).ready
    async with LocalCluster(settings).api_server() as server:
        await until_refused(server)
    await installation.down(settings)
    assert processes_of(settings.home) == []


async def test_down_after_the_supervisor_was_killed_leaves_nothing(settings: Settings) -> None:
    await installation.up(settings, fsync=False)
    found = await installation.status(settings)
    assert found.supervisor is not None
    os.kill(found.supervisor.pid, signal.SIGKILL)
    await installation.down(settings)
    assert processes_of(settings.home) == []


_UP = """
import asyncio, sys
from pathlib import Path
from triplane.localcluster import installation
from triplane.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
asyncio.run(installation.up(settings, fsync=False, progress=lambda line: print(line, flush=True)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "termination"])
@pytest.mark.parametrize("when", ["etcd started", "kinds served", "gateway started"])
def test_an_interrupted_up_leaves_nothing(when: str, number: signal.Signals, short_home: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", _UP, str(short_home)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert command.stdout is not None
    with command, contextlib.closing(command.stdout):
        assert any(when in line for line in command.stdout), "it ended before it could be interrupted"
        assert processes_of(short_home)
        command.send_signal(number)
        command.stdout.read()
        assert command.wait(60) != 0
    assert processes_of(short_home) == []


async def test_an_up_that_cannot_succeed_says_why_and_leaves_nothing(short_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(home=short_home, gateway_port=taken.getsockname()[1])
        with pytest.raises(Unavailable, match=r"(?s)gateway ended before it was ready.*gateway\.log.*cannot listen"):
            await installation.up(settings, fsync=False)
    assert processes_of(short_home) == []


async def test_another_cluster_is_used_and_left_as_it_is(settings: Settings) -> None:
    elsewhere = LocalCluster(Settings(home=Path(tempfile.mkdtemp(prefix="tri-"))), fsync=False)
    try:
        await elsewhere.up()
        chosen = Settings(home=settings.home, kubeconfig=elsewhere.admin_kubeconfig)
        await installation.up(chosen, cluster=installation.ClusterChoice.CURRENT, namespaces=["work"])
        found = await installation.status(chosen)
        assert found.ready
        assert [process.name for process in found.processes] == ["postgres", "gateway", "operator", "runner"]
        async with elsewhere.api_server() as server:
            assert (await server.request("GET", "/apis/triplane.dev/v1alpha1/graphs")).status_code == 200
        await installation.down(chosen)
        assert processes_of(settings.home) == []
        assert all(component.ready for component in await elsewhere.status())
    finally:
        await elsewhere.down()
        shutil.rmtree(elsewhere.admin_kubeconfig.parent.parent, ignore_errors=True)
