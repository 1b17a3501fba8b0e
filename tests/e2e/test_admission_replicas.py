"""Several admission webhooks on one address, and their certificates rotated under load: no create is refused for it."""

import asyncio
import base64
import re
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.api import Api
from tests.e2e.fixtures import ControlPlane
from tests.e2e.objects import valid

from triplane import endpoints
from triplane.localcluster.certificates import SETTLED, Certificates
from triplane.localcluster.identity import send
from triplane.localcluster.services import Service, admission
from triplane.localcluster.webhook import address, install_webhook, keep_webhook, mark
from triplane.settings import Settings

pytestmark = [pytest.mark.e2e]

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/admission.triplane.dev"
AUTHORITY_SECONDS, CERTIFICATE_SECONDS = 36, 12


class Replicas:
    """Two webhooks of the session's API server."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.plane = control_plane
        self.settings = Settings(home=control_plane.settings.home, admission_replicas=2)
        self.certificates = Certificates.of(self.settings)
        self.services: dict[int, Service] = {number: admission(self.settings, number) for number in (1, 2)}

    async def start(self) -> None:
        for service in self.services.values():
            await self.up(service)
        await self.register()

    async def register(self) -> None:
        async with self.plane.cluster.api_server() as server:
            await install_webhook(server, self.url, self.certificates.bundle())

    async def begin_anew(self, settings: Settings) -> None:
        """With new certificates, that live as these settings say."""
        for path in self.certificates.serving.parent.glob("*"):
            path.unlink()
        Certificates.of(settings).ensure()
        await asyncio.sleep(SETTLED.total_seconds())
        await self.register()

    async def up(self, service: Service) -> None:
        service.process.start()
        await service.process.wait_ready(service.ready, seconds=30)

    async def stop(self) -> None:
        for service in self.services.values():
            await service.process.stop(at_once=True)

    @property
    def url(self) -> str:
        return address(self.settings.run)

    def answered(self, number: int) -> int:
        """Requests that this replica has answered."""
        own = endpoints.read(self.settings.run)[f"admission-{number}"]
        tls = ssl.create_default_context(cafile=str(self.certificates.trusted))
        metrics = httpx.get(f"{own}/metrics", verify=tls, trust_env=False).raise_for_status().text
        return sum(int(float(found)) for found in re.findall(r"seconds_count\{[^}]*\} (\S+)", metrics))


@pytest.fixture(scope="module")
def replicas(control_plane: ControlPlane, admin: Api) -> Iterator[Replicas]:
    running = Replicas(control_plane)
    try:
        asyncio.run(running.start())
        yield running
    finally:
        admin.request("DELETE", CONFIGURATION)
        asyncio.run(running.stop())
        # What a rotation in seconds left ends in seconds: whoever comes next begins with certificates of its own.
        shutil.rmtree(running.certificates.serving.parent)
        Certificates.of(control_plane.settings).ensure()


class Load:
    """Creates one after the other, each on a connection of the API server's choice; keeps what went wrong."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.made = 0
        self.wrong: list[str] = []
        self._api, self._namespace = api, namespace
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> None:
        """Begin, unless it has."""
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        """End, if it has begun."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            answer = self._api.create(valid("Graph", self._namespace, f"g-{self.made + len(self.wrong)}"))
            if answer.status_code == 201:
                self.made += 1
            else:
                self.wrong.append(answer.text)
            time.sleep(0.02)


def test_when_one_of_two_is_killed_creates_go_on(replicas: Replicas, namespace: str, alice: Api) -> None:
    first, second = (replicas.services[number].process.running() for number in (1, 2))
    assert first is not None
    assert second is not None
    send(first, signal.SIGKILL)
    asyncio.run(replicas.services[1].process.stop(at_once=True))
    before = replicas.answered(2)
    for number in range(10):
        assert alice.create(valid("Graph", namespace, f"after-{number}")).status_code == 201
    assert replicas.answered(2) >= before + 10
    # The other way round: whoever came back takes over.
    asyncio.run(replicas.up(replicas.services[1]))
    send(second, signal.SIGKILL)
    asyncio.run(replicas.services[2].process.stop(at_once=True))
    before = replicas.answered(1)
    for number in range(10):
        assert alice.create(valid("Graph", namespace, f"again-{number}")).status_code == 201
    assert replicas.answered(1) >= before + 10
    asyncio.run(replicas.up(replicas.services[2]))


def test_one_that_is_stopped_in_good_order_refuses_nothing(replicas: Replicas, namespace: str, alice: Api) -> None:
    load = Load(alice, namespace)
    load.begin()
    try:
        for number in (1, 2):
            time.sleep(0.5)
            asyncio.run(replicas.services[number].process.stop())
            time.sleep(0.5)
            asyncio.run(replicas.up(replicas.services[number]))
    finally:
        load.end()
    assert load.made > 20
    assert not load.wrong, load.wrong[:3]


def registered(admin: Api) -> bytes:
    """What the API server is told to trust."""
    found: dict[str, Any] = admin.request("GET", CONFIGURATION).raise_for_status().json()
    return base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])


def accepted(url: str, bundle: bytes) -> bool:
    """Whether a new connection that trusts this bundle accepts what is served."""
    parts = urlsplit(url)
    tls = ssl.create_default_context(cadata=bundle.decode())
    try:
        with (
            socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=5) as plain,
            tls.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except ssl.SSLCertVerificationError:
        return False


async def rotated(replicas: Replicas, admin: Api, load: "Load", seconds: float) -> tuple[list[bytes], int]:
    """Keep the certificates as the supervisor does, and connect anew all the time: every bundle that was registered,
    and how many connections were refused."""
    short = replicas.settings.model_copy(
        update={
            "admission_authority_seconds": AUTHORITY_SECONDS,
            "admission_certificate_seconds": CERTIFICATE_SECONDS,
        }
    )
    await replicas.begin_anew(short)
    known = mark(replicas.url, replicas.certificates.bundle())
    keeping = asyncio.create_task(keep_webhook(short, replicas.plane.cluster, known))
    bundles: list[bytes] = []
    refused, deadline = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            load.begin()
            bundle = await asyncio.to_thread(registered, admin)
            if not bundles or bundles[-1] != bundle:
                bundles.append(bundle)
                if len(bundles) == len(("old", "both", "new")):
                    deadline = time.monotonic() + 2
            refused += not await asyncio.to_thread(accepted, replicas.url, bundle)
            assert not keeping.done(), keeping.exception()
            await asyncio.sleep(0.05)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    return bundles, refused


def test_a_rotation_of_the_authority_refuses_no_create_and_no_connection(
    replicas: Replicas, namespace: str, admin: Api, alice: Api
) -> None:
    load = Load(alice, namespace)
    try:
        bundles, refused = asyncio.run(rotated(replicas, admin, load, 3 * AUTHORITY_SECONDS))
    finally:
        load.end()
    assert len(bundles) >= 3, "no rotation was seen"
    old, both, new = bundles[:3]
    assert both == old + new
    assert refused == 0
    assert load.made > 100
    assert not load.wrong, load.wrong[:3]
