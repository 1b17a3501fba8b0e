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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.api import Api

from triplane import endpoints
from triplane.api.text import API_VERSION
from triplane.localcluster.caller import Caller
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.identity import send
from triplane.localcluster.install import PEOPLE, PEOPLE_NAMESPACE, grant, install
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
        self.certificates = Certificates.of(control_plane.settings)

    def start(self) -> None:
        """Returns when the API server asks it."""
        asyncio.run(self._start())

    async def _start(self) -> None:
        self._service.process.start()
        await self._service.process.wait_ready(self._service.ready, seconds=30)
        async with self._plane.cluster.api_server() as server:
            await install_webhook(server, self.url, self.certificates.bundle())

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

    @contextmanager
    def expired_certificate(self) -> Iterator[None]:
        """It serves one of its own authority whose time is over. A certificate is looked at once per connection, so
        the webhook is started anew."""
        kept = self.certificates.serving.read_bytes()
        long_ago = datetime.now(UTC) - timedelta(days=60)
        short = Certificates(
            self.certificates.serving.parent, authority=timedelta(days=365), certificate=timedelta(days=30)
        )
        self.certificates.serving.unlink()
        short.ensure(long_ago)
        asyncio.run(self._again())
        try:
            yield
        finally:
            self.certificates.serving.write_bytes(kept)
            asyncio.run(self._service.process.stop())
            self.start()

    async def _again(self) -> None:
        """Started anew, however it answers."""
        await self._service.process.stop()
        before = endpoints.read(self._plane.settings.run)
        self._service.process.start()
        deadline = time.monotonic() + 30
        while endpoints.read(self._plane.settings.run).get("admission-1") == before.get("admission-1"):
            assert time.monotonic() < deadline, "the webhook does not come up"
            await asyncio.sleep(0.05)

    @property
    def url(self) -> str:
        return address(self._plane.settings.run)

    def certificate(self) -> str:
        """What it serves a new connection with (PEM)."""
        parts = urlsplit(self.url)
        return ssl.get_server_certificate((str(parts.hostname), int(parts.port or 0)))

    @property
    def caller(self) -> str:
        """By which it knows the API server."""
        return Caller.of(self._plane.settings).token.read_text()

    def post(self, path: str, *, token: str | None) -> httpx.Response:
        """What is no review, as somebody on this machine or as the API server."""
        tls = ssl.create_default_context(cafile=str(self.certificates.trusted))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.post(self.url + path, json={}, headers=headers, verify=tls, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        """As somebody on this machine."""
        tls = ssl.create_default_context(cafile=str(self.certificates.trusted))
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


@pytest.fixture
def rules_namespace(make_namespace: Callable[[], str], admin: Api) -> str:
    """A namespace in which alice and bob may make Policies too."""
    name = make_namespace()
    let_rule(admin, name)
    return name


def let_rule(admin: Api, namespace: str, role: str = "triplane-policy-admin") -> None:
    """Bind the role to alice and bob there, and return when it is in force."""
    group = "rbac.authorization.k8s.io"
    people = [{"kind": "ServiceAccount", "name": person, "namespace": PEOPLE_NAMESPACE} for person in PEOPLE]
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": people,
    }
    path = f"/apis/{group}/v1/namespaces/{namespace}/rolebindings"
    admin.request("POST", path, json=binding).raise_for_status()
    deadline = time.monotonic() + 30
    while not all(_may_rule(admin, namespace, f"system:serviceaccount:{PEOPLE_NAMESPACE}:{who}") for who in PEOPLE):
        assert time.monotonic() < deadline, f"{role} is not in force in {namespace}"
        time.sleep(0.05)


def _may_rule(admin: Api, namespace: str, user: str) -> bool:
    attributes = {"namespace": namespace, "verb": "create", "group": "triplane.dev", "resource": "policies"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = admin.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", json=body)
    return bool(answer.raise_for_status().json()["status"]["allowed"])


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
