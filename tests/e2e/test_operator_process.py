"""``python -m triplane.operator`` as a process: starts late, says how it is, ends with the right code."""

import asyncio
import os
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

    async def until(self, path: str, condition: Callable[[int, str], bool], seconds: float = 30) -> None:
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


def variables(database: Database, cluster: PrivateCluster) -> dict[str, str]:
    return {
        "TRIPLANE_DATABASE_NAME": database.name,
        "TRIPLANE_KUBECONFIG": str(cluster.kubeconfig("operator")),
    }


async def test_it_reports_ready_and_ends_with_0_when_told_to(
    database: Database,
    private_cluster: PrivateCluster,  # noqa: F811
) -> None:
    async with operator(database.server.home, **variables(database, private_cluster)) as it:
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
    async with operator(database.server.home, **setting) as older:
        await older.said("the mirror is filled")
        async with operator(database.server.home, **setting) as newer:
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
    async with operator(database.server.home, **setting) as it:
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
