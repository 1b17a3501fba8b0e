"""A real control plane for the whole test session, with Triplane's kinds, policies and accounts installed.

Another tier that needs it imports these names into its ``conftest.py``. Where it cannot run, its tests fail.
"""

import asyncio
import itertools
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.api import Api

from triplane.api.text import API_VERSION
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.install import grant, install
from triplane.localcluster.pki import Pki, ensure_pki
from triplane.localcluster.process import send
from triplane.localcluster.services import admission
from triplane.localcluster.webhook import address, install_webhook
from triplane.settings import Settings


@dataclass(frozen=True)
class ControlPlane:
    """The session's API server."""

    cluster: LocalCluster
    settings: Settings

    def kubeconfig(self, name: str) -> Path:
        """Of ``admin``, ``operator``, ``gateway``, ``alice`` or ``bob``."""
        return self.settings.secrets / f"kubeconfig-{name}"


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home whose socket paths are short enough; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="tri-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager in a home of their own."""
    home = Path(tempfile.mkdtemp(prefix="tri-e2e-"))
    settings = Settings(home=home)
    cluster = LocalCluster(settings, fsync=False)
    try:
        asyncio.run(_up(cluster, settings))
        yield ControlPlane(cluster, settings)
    finally:
        asyncio.run(cluster.down())
        shutil.rmtree(home, ignore_errors=True)


async def _up(cluster: LocalCluster, settings: Settings) -> None:
    await cluster.up()
    async with cluster.api_server() as server:
        await install(server, settings.secrets)


class AdmissionWebhook:
    """The webhook of the session's API server, as its own process."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._plane = control_plane
        self._service = admission(control_plane.settings)

    def start(self) -> None:
        """Returns when the API server asks it."""
        asyncio.run(self._start())

    async def _start(self) -> None:
        self._service.process.start()
        await self._service.process.wait_ready(self._service.ready, seconds=30)
        async with self._plane.cluster.api_server() as server:
            assert server.authority is not None
            await install_webhook(server, self.url, server.authority)

    def stop(self) -> None:
        """End the process; its registration stays."""
        asyncio.run(self._service.process.stop())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped in its tracks: connections are taken, nothing is answered."""
        identity = self._service.process.running()
        assert identity is not None
        send(identity, signal.SIGSTOP)
        try:
            yield
        finally:
            send(identity, signal.SIGCONT)

    @property
    def url(self) -> str:
        return address(self._plane.settings.run)

    def certificate(self) -> str:
        """What it serves a new connection with (PEM)."""
        parts = urlsplit(self.url)
        return ssl.get_server_certificate((str(parts.hostname), int(parts.port or 0)))

    def renew_certificate(self) -> None:
        """As the next start of the control plane does when it is about to expire."""
        pki = Pki(self._plane.settings.cluster / "pki")
        pki.certificate("admission").unlink()
        ensure_pki(pki.folder, {"admission": ("127.0.0.1", "localhost")})

    def get(self, path: str) -> httpx.Response:
        """As somebody on this machine."""
        tls = ssl.create_default_context(cafile=str(self._plane.settings.cluster / "pki" / "ca.crt"))
        return httpx.get(self.url + path, verify=tls, trust_env=False)


@pytest.fixture(scope="module")
def webhook(control_plane: ControlPlane, admin: Api) -> Iterator[AdmissionWebhook]:
    """The admission webhook, for this module; then it is gone, and its registration with it."""
    running = AdmissionWebhook(control_plane)
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/admission.triplane.dev"
    try:
        running.start()
        yield running
    finally:
        admin.request("DELETE", path)
        running.stop()


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """The cluster's administrator."""
    with Api(control_plane.kubeconfig("admin")) as api:
        yield api


@pytest.fixture(scope="session")
def operator(control_plane: ControlPlane) -> Iterator[Api]:
    """The operator's ServiceAccount, while no operator runs."""
    with Api(control_plane.kubeconfig("operator")) as api:
        yield api


@pytest.fixture(scope="session")
def alice(control_plane: ControlPlane) -> Iterator[Api]:
    """A user."""
    with Api(control_plane.kubeconfig("alice")) as api:
        yield api


@pytest.fixture(scope="session")
def bob(control_plane: ControlPlane) -> Iterator[Api]:
    """Another user."""
    with Api(control_plane.kubeconfig("bob")) as api:
        yield api


_numbers = itertools.count(1)


@pytest.fixture
def make_namespace(control_plane: ControlPlane, admin: Api, alice: Api) -> Iterator[Callable[[], str]]:
    """Makes namespaces in which alice and bob may work; they are deleted afterwards."""
    made: list[str] = []

    async def open_to_people(name: str) -> None:
        async with control_plane.cluster.api_server() as server:
            await grant(server, name)

    def make() -> str:
        name = f"test-{next(_numbers)}"
        made.append(name)
        asyncio.run(open_to_people(name))
        # The authorizer learns of the binding a moment after it is stored.
        deadline = time.monotonic() + 30
        path = f"/apis/{API_VERSION}/namespaces/{name}/graphs"
        while alice.request("GET", path).status_code != httpx.codes.OK:
            assert time.monotonic() < deadline, f"alice may not work in {name}"
            time.sleep(0.05)
        return name

    yield make
    for name in made:
        admin.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A namespace of this test, in which alice and bob may work."""
    return make_namespace()


def find_kubectl() -> str:
    """The machine's, else the wheel's."""
    return shutil.which("kubectl") or str(Path(sys.executable).parent / "kubectl")


@pytest.fixture
def kubectl(control_plane: ControlPlane, tmp_path: Path) -> Callable[..., str]:
    """Runs kubectl as the administrator and returns what it says; ``fails=True`` expects a refusal."""
    own = ["--kubeconfig", str(control_plane.kubeconfig("admin")), "--cache-dir", str(tmp_path / "kubectl")]

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [find_kubectl(), *own, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode != 0) == fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr if fails else done.stdout

    return run
