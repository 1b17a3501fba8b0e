"""kopf, index, sweep and queue together on a real API server, with a reconciler that only takes notes."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.e2e.private_cluster import PrivateCluster, private_cluster  # noqa: F401 - a fixture

from triplane.adapters.clock import SystemClock
from triplane.adapters.kube.cluster import KubeCluster
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.controllers.key import Key
from triplane.errors import Fenced, Forbidden, Unavailable
from triplane.operator import handlers as handlers_module
from triplane.operator import shell as shell_module
from triplane.operator.health import unhealthy, unready
from triplane.operator.rewind import Rewound
from triplane.operator.shell import Shell, Stores

pytestmark = pytest.mark.e2e


class Notes:
    """Writes nothing, remembers everything."""

    def __init__(self) -> None:
        self.shell: Shell | None = None
        self.seen: list[tuple[str, str | None]] = []
        self.ended: list[str] = []
        self.caught_up = 0

    async def reconcile(self, key: Key) -> float | None:
        assert self.shell is not None
        obj = self.shell.index.get(key.kind, key.namespace, key.name)
        self.seen.append((f"{key.kind}/{key.name}", obj["metadata"]["resourceVersion"] if obj else None))
        return None

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        self.ended.append(f"{kind}/{obj['metadata']['name']}")

    async def catch_up(self) -> None:
        self.caught_up += 1

    async def project(self) -> None:
        pass

    def has_seen(self, obj: Mapping[str, Any]) -> bool:
        return False

    def versions(self, name: str) -> list[str | None]:
        return [version for seen, version in self.seen if seen == name]


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class World:
    """A running shell, and a person beside it."""

    def __init__(self, shell: Shell, notes: Notes, person: KubeCluster, log: MemoryLog) -> None:
        self.shell = shell
        self.notes = notes
        self.person = person
        self.log = log

    async def make(self, name: str, **spec: Any) -> dict[str, Any]:
        body = {"kind": "Graph", "metadata": {"name": name, "namespace": "team"}, "spec": spec}
        while True:
            try:
                return (await self.person.create(body))[0]
            except (Unavailable, Forbidden):  # RBAC's caches are empty for a moment after a start
                await asyncio.sleep(0.2)

    async def edit(self, name: str, **spec: Any) -> dict[str, Any]:
        answer = await self.person._transport.request(
            "PATCH", _path(name), body={"spec": spec}, content_type="application/merge-patch+json"
        )
        assert answer.ok, answer.message
        body: dict[str, Any] = answer.body
        return body

    async def delete(self, name: str) -> None:
        assert (await self.person._transport.request("DELETE", _path(name))).ok


def _path(name: str) -> str:
    return f"/apis/triplane.dev/v1alpha1/namespaces/team/graphs/{name}"


def new() -> str:
    return f"g-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def world(
    cluster: PrivateCluster, *, namespace: str | None = None, sessions: MemorySessionStore | None = None
) -> AsyncIterator[World]:
    clock = SystemClock()
    shared = MemoryLog.create()
    log = MemoryEventLog(shared, writer="operator")
    await log.begin_epoch()
    kube = KubeCluster(cluster.kubeconfig("operator"), fence=log.check_epoch)
    person = KubeCluster(cluster.kubeconfig("alice"), field_manager="alice")
    notes = Notes()
    shell = Shell(
        kube,
        Stores(log, sessions or MemorySessionStore(clock)),
        clock,
        kubeconfig=cluster.kubeconfig("operator"),
        namespace=namespace,
        lease_seconds=15,
    )
    notes.shell = shell
    stop = asyncio.Event()
    running = asyncio.create_task(shell.run(notes, stop))
    try:
        await eventually(lambda: shell.watcher.started or running.done())
        yield World(shell, notes, person, shared)
        # Told to stop, unless the test has it end by itself.
        await asyncio.wait({running}, timeout=0 if shared.epochs["operator"] == 1 else 30)
    finally:
        stop.set()
        try:
            await asyncio.wait_for(running, 30)
        finally:
            await person.close()
            await kube.close()


async def test_creation_update_and_deletion_reach_the_reconciler(private_cluster: PrivateCluster) -> None:  # noqa: F811
    async with world(private_cluster) as it:
        name = new()
        made = await it.make(name, title="one")
        await eventually(lambda: made["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{name}"))
        edited = await it.edit(name, title="two")
        await eventually(lambda: edited["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{name}"))
        await it.delete(name)
        await eventually(lambda: None in it.notes.versions(f"Graph/{name}"))
        await eventually(lambda: f"Graph/{name}" in it.notes.ended)
        assert it.notes.ended.count(f"Graph/{name}") == 1


async def test_an_event_is_reconciled_within_a_fraction_of_a_second(private_cluster: PrivateCluster) -> None:  # noqa: F811
    async with world(private_cluster) as it:
        warm = new()
        await it.make(warm)
        await eventually(lambda: bool(it.notes.versions(f"Graph/{warm}")))
        delays = []
        for _ in range(20):
            name = new()
            await it.make(name)
            began = asyncio.get_running_loop().time()
            await eventually(lambda name=name: bool(it.notes.versions(f"Graph/{name}")))  # type: ignore[misc]
            delays.append(asyncio.get_running_loop().time() - began)
        assert sorted(delays)[len(delays) // 2] < 0.5


async def test_what_existed_before_the_start_is_reconciled_once_and_a_resync_writes_nothing(
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    names = [new() for _ in range(20)]
    async with world(private_cluster) as it:
        for name in names:
            await it.make(name)
    before = await private_cluster.writes()
    async with world(private_cluster) as it:
        assert it.notes.caught_up == 1
        await eventually(lambda: all(it.notes.versions(f"Graph/{name}") for name in names))
        await asyncio.sleep(1)  # kopf lists everything again; nothing of it is news
        assert all(len(it.notes.versions(f"Graph/{name}")) == 1 for name in names)
        assert await it.shell.sweep.once() == 0
        assert all(len(it.notes.versions(f"Graph/{name}")) == 1 for name in names)
        obj = it.shell.index.get("Graph", "team", names[0])
        assert obj is not None
        assert "finalizers" not in obj["metadata"]
        assert not any("kopf" in key for key in obj["metadata"].get("annotations", {}))
    assert await private_cluster.writes() == before


async def test_a_restart_of_the_api_server_is_survived(private_cluster: PrivateCluster) -> None:  # noqa: F811
    async with world(private_cluster) as it:
        before, after = new(), new()
        await it.make(before)
        await eventually(lambda: bool(it.notes.versions(f"Graph/{before}")))
        await private_cluster.restart(seconds_down=2)
        made = await it.make(after)
        await eventually(lambda: made["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{after}"))
        edited = await it.edit(before, title="again")
        await eventually(lambda: edited["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{before}"))
        assert unhealthy(it.shell) == []


async def test_the_sweep_repairs_what_the_watches_missed(
    private_cluster: PrivateCluster,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(private_cluster) as it:
        deleted, made = new(), new()
        await it.make(deleted)
        await eventually(lambda: bool(it.notes.versions(f"Graph/{deleted}")))
        deaf: list[object] = []
        monkeypatch.setattr(it.shell.watcher, "_deliver", lambda kind, obj: deaf.append(obj))
        await it.make(made)
        await it.delete(deleted)
        await eventually(lambda: len(deaf) >= 2)
        assert it.notes.versions(f"Graph/{made}") == []
        assert await it.shell.sweep.once() == 2
        await eventually(lambda: bool(it.notes.versions(f"Graph/{made}")))
        await eventually(lambda: f"Graph/{deleted}" in it.notes.ended)


async def test_a_stuck_watch_is_begun_again_and_called_unhealthy_when_that_does_not_help(
    private_cluster: PrivateCluster,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triplane.operator.sweep.LATE_SECONDS", 0.1)
    monkeypatch.setattr(shell_module, "SUPERVISE_SECONDS", 0.05)
    async with world(private_cluster) as it:
        original = it.shell.watcher._deliver
        it.shell.watcher._deliver = lambda kind, obj: None
        for number in range(1, shell_module.STUCK_RESTARTS + 1):
            await it.make(new())
            await it.shell.sweep.once()
            await eventually(lambda number=number: it.shell.stuck == number)  # type: ignore[misc]
        assert unhealthy(it.shell) == ["the watches stayed stuck after 3 restarts"]
        it.shell.watcher._deliver = original
        name = new()
        it.shell.watcher.restart("the test has ears again")
        made = await it.make(name)
        await eventually(lambda: made["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{name}"))


async def test_a_fatal_error_of_the_watches_leads_to_a_visible_restart(
    private_cluster: PrivateCluster,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, failures = handlers_module.kopf.operator, 0

    async def fail_twice(**options: Any) -> None:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise RuntimeError("Error in the watch-stream: code 500")
        await original(**options)

    monkeypatch.setattr(handlers_module.kopf, "operator", fail_twice)
    async with world(private_cluster) as it:
        name = new()
        made = await it.make(name)
        await eventually(lambda: made["metadata"]["resourceVersion"] in it.notes.versions(f"Graph/{name}"))
        assert failures == 2
        assert it.shell.watcher.restarts == 2


async def test_a_namespaced_operator_sees_its_namespace_only(private_cluster: PrivateCluster) -> None:  # noqa: F811
    async with world(private_cluster, namespace="default") as it:
        elsewhere, here = new(), new()
        await it.make(elsewhere)
        body = {"kind": "Graph", "metadata": {"name": here, "namespace": "default"}, "spec": {}}
        await it.person.create(body)
        await eventually(lambda: bool(it.notes.versions(f"Graph/{here}")))
        assert it.notes.versions(f"Graph/{elsewhere}") == []


async def test_a_fenced_operator_ends_at_once(private_cluster: PrivateCluster) -> None:  # noqa: F811
    with pytest.raises(Fenced):
        async with world(private_cluster) as it:
            await MemoryEventLog(it.log, writer="operator").begin_epoch()


async def test_an_api_server_that_went_back_in_time_halts_the_operator(
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    sessions = MemorySessionStore(SystemClock())
    async with world(private_cluster, sessions=sessions):
        pass
    admin = KubeCluster(private_cluster.kubeconfig("admin"))
    try:
        system = await admin.get("Namespace", "", "kube-system")
    finally:
        await admin.close()
    assert system is not None
    mark = f"api-version/{system['metadata']['uid']}/0"
    assert await sessions.cursor(mark) > 0, "the highest version seen is kept"
    await sessions.set_cursor(mark, 2**40)
    with pytest.raises(Rewound, match="TRIPLANE_ACCEPT_RESTORE"):
        async with world(private_cluster, sessions=sessions):
            pass


# kopf forgets to close the client session of a server that was frozen; the sockets end with its loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_readiness_follows_the_api_server_and_the_database(private_cluster: PrivateCluster) -> None:  # noqa: F811
    async with world(private_cluster) as it:
        clock = SystemClock()
        await eventually(lambda: unready(it.shell, clock) == [])
        it.shell.stores_seen_at = clock.monotonic() - 3600
        assert "the database does not answer" in unready(it.shell, clock)
        await private_cluster.pause(signal.SIGSTOP)
        try:
            assert unhealthy(it.shell) == [], "a restart of the operator would not mend the API server"
        finally:
            await private_cluster.pause(signal.SIGCONT)
