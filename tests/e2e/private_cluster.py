"""A control plane of one test module alone, for tests that restart it or count its writes."""

import asyncio
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.install import install
from triplane.settings import Settings

_WRITES = re.compile(r"^apiserver_request_total\{([^}]*)\} (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class PrivateCluster:
    """A running control plane with everything of Triplane's installed, and nobody working on it."""

    local: LocalCluster
    secrets: Path

    def kubeconfig(self, name: str) -> Path:
        """``operator``, ``gateway``, ``alice``, ``bob`` or ``admin``."""
        return self.secrets / f"kubeconfig-{name}"

    async def restart(self, seconds_down: float = 0.0) -> None:
        """Stop all of it and start it again on the same data."""
        await self.local.down()
        await asyncio.sleep(seconds_down)
        await self.local.up()

    async def pause(self, number: signal.Signals) -> None:
        """Send a signal to the API server."""
        for component in await self.local.status():
            if component.name == "kube-apiserver" and component.pid:
                import os

                os.kill(component.pid, number)

    async def writes(self) -> dict[str, int]:
        """Successful writes so far on Triplane's kinds and on Events, by ``verb resource/subresource``."""
        async with await ApiServer.from_kubeconfig(self.local.admin_kubeconfig) as server:
            text = (await server.request("GET", "/metrics")).raise_for_status().text
        found: dict[str, int] = {}
        for labels, count in _WRITES.findall(text):
            label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            ours = label["group"] == "triplane.dev" or label["resource"] == "events"
            if ours and label["verb"] in {"POST", "PUT", "PATCH", "DELETE", "APPLY"} and label["code"].startswith("2"):
                if label.get("dry_run"):
                    continue
                name = f"{label['verb']} {label['resource']}/{label['subresource']}".rstrip("/")
                found[name] = found.get(name, 0) + int(count)
        return found


async def _up(local: LocalCluster, secrets: Path) -> None:
    await local.up()
    async with await ApiServer.from_kubeconfig(local.admin_kubeconfig) as server:
        await install(server, secrets, namespaces=("default", "team"))


@pytest.fixture(scope="module")
def private_cluster() -> Iterator[PrivateCluster]:
    """A control plane without fsync, in a short temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="tri-k8s-"))
    settings = Settings(home=home)
    local = LocalCluster(settings, fsync=False)
    try:
        asyncio.run(_up(local, settings.secrets))
        yield PrivateCluster(local, settings.secrets)
    finally:
        asyncio.run(local.down())
        shutil.rmtree(home, ignore_errors=True)
