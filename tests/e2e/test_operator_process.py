"""``python -m triplane.operator`` as a process: starts late, says how it is, ends with the right code."""

import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from tests.conftest import Database
from tests.e2e.private_cluster import PrivateCluster, private_cluster  # noqa: F401 - a fixture

from triplane import endpoints
from triplane.localcluster.apiserver import ApiServer

pytestmark = pytest.mark.e2e


class Operator:
    """A running operator process and what it logged."""

    def __init__(self, process: Process, run: Path) -> None:
        self.process = process
        self.run = run
        self.lines: list[dict[str, object]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(orjson.loads(line))

    async def said(self, words: str, seconds: float = 30) -> dict[str, object]:
        """The first log line with these words."""
        async with asyncio.timeout(seconds):
            while True:
                for line in self.lines:
                    if words in str(line.get("event")):
                        return line
                assert not self._reading.done(), f"ended without saying {words!r}: {self.lines}"
                await asyncio.sleep(0.05)

    async def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a health probe."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            answer = await client.get(f"{endpoints.read(self.run)['operator']}{path}")
            return answer.status_code, answer.text

    async def until(self, path: str, condition: Callable[[int, str], object], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not condition(*await self.probe(path)):
                await asyncio.sleep(0.1)

    async def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal and wait; the exit code, and nothing but JSON on standard error."""
        if number is not None:
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 40)
        await self._reading
        return code


@asynccontextmanager
async def operator(home: Path, **variables: str) -> AsyncIterator[Operator]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "triplane.operator",
        env={**environment, "TRIPLANE_HOME": str(home), **variables},
        stderr=PIPE,
    )
    running = Operator(process, home / "run")
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await running._reading


def home_of(database: Database) -> Path:
    """A home of its own for the operators of this database: what one has signed is not another's past."""
    home = database.server.home / database.name
    if not home.exists():
        shutil.copytree(database.server.home / "secrets", home / "secrets", ignore=shutil.ignore_patterns("[!d]*"))
        (home / "pg").symlink_to(database.server.home / "pg")
    return home


def variables(database: Database, cluster: PrivateCluster) -> dict[str, str]:
    return {
        "TRIPLANE_DATABASE_NAME": database.name,
        "TRIPLANE_KUBECONFIG": str(cluster.kubeconfig("operator")),
    }


async def test_it_reports_ready_and_ends_with_0_when_told_to(
    database: Database,
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    async with operator(home_of(database), **variables(database, private_cluster)) as it:
        await it.said("the mirror is filled")
        await it.until("/readyz", lambda code, text: (code, text) == (200, "ok\n"))
        assert await it.probe("/healthz") == (200, "ok\n")
        assert (await it.probe("/elsewhere"))[0] == 404
        code, text = await it.probe("/metrics")
        assert code == 200
        assert 'triplane_operator_index_objects{kind="Graph"}' in text
        assert "triplane_operator_log_lag_entries 0.0" in text
        assert "triplane_operator_sweep_seconds_count 1.0" in text
        assert await it.end(signal.SIGTERM) == 0
        assert [line for line in it.lines if line["level"] in ("error", "critical")] == []


async def test_a_newer_operator_fences_the_older_which_ends_with_3(
    database: Database,
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    setting = variables(database, private_cluster)
    async with operator(home_of(database), **setting) as older:
        await older.said("the mirror is filled")
        async with operator(home_of(database), **setting) as newer:
            await newer.said("the mirror is filled")
            assert await older.end() == 3
            assert await newer.end(signal.SIGTERM) == 0


async def test_it_waits_for_an_absent_database_and_can_be_stopped_meanwhile(
    private_cluster: PrivateCluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with operator(
        tmp_path,
        TRIPLANE_KUBECONFIG=str(private_cluster.kubeconfig("operator")),
        TRIPLANE_DATABASE_PASSWORD="none",
        TRIPLANE_DATABASE_HOST=str(tmp_path / "nowhere"),
    ) as it:
        await it.said("waiting for a backend")
        assert await it.end(signal.SIGTERM) == 0


async def test_it_waits_for_an_absent_api_server_not_ready_but_alive(database: Database, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )
    setting = {"TRIPLANE_DATABASE_NAME": database.name, "TRIPLANE_KUBECONFIG": str(kubeconfig)}
    async with operator(home_of(database), **setting) as it:
        await it.said("cannot start yet")
        code, text = await it.probe("/readyz")
        assert (code, text) == (503, "the API server has not been read yet\n")
        assert (await it.probe("/healthz"))[0] == 200
        assert await it.end(signal.SIGTERM) == 0


async def test_a_misspelt_setting_is_refused_with_2(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "triplane.operator",
        env={**os.environ, "TRIPLANE_HOME": str(tmp_path), "TRIPLANE_NAMESPAEC": "team"},
        stderr=PIPE,
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"TRIPLANE_NAMESPAEC" in error


async def test_an_operator_whose_log_was_cut_ends_with_5_before_it_does_anything(
    database: Database,
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    """Rows 13 and 14 of the attack table as a whole: the ConfigMap alone remembers."""
    home, setting = home_of(database), variables(database, private_cluster)
    anchor = f"configmap:team/{database.name.replace('_', '-')}"
    await allow_config_map(private_cluster, anchor)
    async with operator(home, **setting, TRIPLANE_ANCHORS=anchor, TRIPLANE_CHECKPOINT_SECONDS="0.1") as it:
        await it.said("the mirror is filled")
        await it.until(
            "/metrics", lambda _, text: re.search(r'checkpoint_anchors{standing="(Absent|Continues)"} 1', text)
        )
        assert await it.end(signal.SIGTERM) == 0

    with database.superuser() as admin:
        for table in ("entries", "entry_ids", "heads", "checkpoints"):
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL".encode())
        admin.execute("DELETE FROM log.checkpoints; DELETE FROM log.entries WHERE seq > 0")
        admin.execute("DELETE FROM log.entry_ids WHERE seq > 0")
        admin.execute("UPDATE log.heads SET (size, leaf, time) = (SELECT 1, leaf, time FROM log.entries)")
    shutil.rmtree(home / "notary")

    async with operator(home, **setting, TRIPLANE_ANCHORS="") as it:  # protection removed
        await it.said("the mirror is filled")
        assert await it.end(signal.SIGTERM) == 0, it.lines
    shutil.rmtree(home / "notary")
    async with operator(home, **setting, TRIPLANE_ANCHORS=anchor) as it:
        assert await it.end() == 5
        said = next(str(line["error"]) for line in it.lines if line["event"] == "the operator ends")
        assert not any(line["event"] == "the mirror is filled" for line in it.lines)
    for words in (anchor, "entries with root", "restore a newer backup", "begin a new log"):
        assert words in said
    accepted = said.rpartition("TRIPLANE_ACCEPT_ROLLBACK=")[2]
    async with operator(home, **setting, TRIPLANE_ANCHORS=anchor, TRIPLANE_ACCEPT_ROLLBACK=accepted) as it:
        await it.said("the mirror is filled")
        await it.until("/metrics", lambda _, text: re.search(r"triplane_operator_checkpoint_size [1-9]", text))
        assert await it.end(signal.SIGTERM) == 0


async def allow_config_map(cluster: PrivateCluster, anchor: str) -> None:
    """What the manifests give the operator for its own ConfigMap, for this one: a module's tests share a cluster."""
    namespace, _, name = anchor.removeprefix("configmap:").partition("/")
    metadata = {"name": name, "namespace": namespace}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "patch"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": "triplane-operator", "namespace": "triplane-system"}
    rbac = "rbac.authorization.k8s.io/v1"
    binding = {"kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [subject]}
    async with await ApiServer.from_kubeconfig(cluster.kubeconfig("admin")) as server:
        await server.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        await server.apply({"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": rules})
        await server.apply({"apiVersion": rbac, **binding})
