"""A real Kubernetes control plane as three ordinary processes: etcd, kube-apiserver, kube-controller-manager.

Enough for everything Triplane keeps in the API server (CRDs, admission policies, RBAC, tokens, garbage
collection, namespace deletion), without containers and without root. etcd is reached over a Unix socket in a
0700 folder, since whoever reaches etcd goes around RBAC; the other two bind loopback ports.
"""

import asyncio
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from triplane import endpoints
from triplane.errors import InvalidInput
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.build import KUBERNETES_VERSION, Progress, ensure_binaries
from triplane.localcluster.caller import Caller
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.files import lock, private_directory, write_private
from triplane.localcluster.kubeconfig import write_kubeconfig
from triplane.localcluster.pki import Pki, ensure_pki
from triplane.localcluster.ports import free_port, is_free
from triplane.localcluster.process import ManagedProcess, Probe
from triplane.settings import Settings

API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
_CONTROLLER_USER = "system:kube-controller-manager"
_SERVICE_RANGE = "10.96.0.0/16"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
_GO = {"GOGC": "400", "GOMEMLIMIT": "1GiB"}
"""Collect garbage less often: memory is cheaper here than processor time. Near 1 GiB each collects as it must."""
_SOCKET_LIMIT = 100
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One process of the control plane."""

    name: str
    pid: int | None
    """None when it does not run."""
    ready: bool
    log: Path


def _silent(_line: str) -> None:
    """Discards progress."""


class LocalCluster:
    """The control plane of one ``$TRIPLANE_HOME``. ``up`` and ``down`` may be called by any process, any
    number of times; the processes belong to the home, not to the caller."""

    def __init__(self, settings: Settings, *, fsync: bool = True) -> None:
        """``fsync=False`` lets etcd lose the last seconds on a power cut: for tests only."""
        self._settings = settings
        self._fsync = fsync
        self._folder = settings.cluster
        self._socket = self._folder / "etcd.sock"
        self._pki = Pki(self._folder / "pki")

    @property
    def admin_kubeconfig(self) -> Path:
        """Cluster administrator (group ``system:masters``); only ``install`` uses it."""
        return self._settings.secrets / "kubeconfig-admin"

    @property
    def server(self) -> str:
        """``https://127.0.0.1:<port>``, chosen by the first ``up``."""
        return f"https://127.0.0.1:{self._ports()[API_SERVER]}"

    async def up(self, progress: Progress = _silent) -> None:
        """Build what is missing, start what does not run, return when all of it serves.

        What runs already, from the same binaries and options, is left alone. Raises ``Unavailable`` with the
        end of the failing component's log, ``InvalidInput`` when the home's path is too long for a socket.
        """
        self._check_socket_path()
        binaries = await ensure_binaries(self._settings.cache, progress)
        private_directory(self._settings.home)
        private_directory(self._settings.run)
        async with self._exclusive():
            private_directory(self._folder)
            loopback = ("127.0.0.1", "localhost")
            ensure_pki(self._pki.folder, {"serving": _SERVING_NAMES, "etcd-peer": loopback})
            Certificates.of(self._settings).ensure()
            Caller.of(self._settings).ensure()
            await self._choose_ports()
            self._write_credentials()
            for process, probe in self.components(binaries):
                await ensure_running(process, probe, progress, seconds=_READY_SECONDS)
        progress(f"Kubernetes {KUBERNETES_VERSION} serves at {self.server}")

    async def down(self, progress: Progress = _silent) -> None:
        """Stop all three and wait until each is gone; the data stays."""
        if not self._folder.exists():
            return
        async with self._exclusive():
            for process in reversed(self._processes()):
                if await process.stop():
                    progress(f"{process.name} stopped")

    def api_server(self) -> ApiServer:
        """The API server as its administrator (after ``up``)."""
        authority = self._pki.authority.read_bytes()
        return ApiServer(self.server, authority=authority, token=self._token("admin"))

    async def status(self) -> tuple[ComponentStatus, ...]:
        """What runs and serves now; changes nothing."""
        if not (self._pki.authority.exists() and self._tokens.exists()):
            return ()
        found = []
        for process, probe in self.components({}):
            identity = process.running()
            ready = identity is not None and await probe()
            found.append(ComponentStatus(process.name, identity.pid if identity else None, ready, process.log))
        return tuple(found)

    # -- what runs --------------------------------------------------------------------------------------

    def components(self, binaries: Mapping[str, Path]) -> Sequence[tuple[ManagedProcess, Probe]]:
        """The processes in the order in which they start, each with its readiness probe (after ``up``)."""
        ports = self._ports()
        probes = (
            self._probe("http://etcd/health", uds=self._socket),
            self._probe(f"https://127.0.0.1:{ports[API_SERVER]}/readyz", token=True),
            self._probe(f"https://127.0.0.1:{ports[CONTROLLER_MANAGER]}/healthz"),
        )
        return tuple(zip(self._processes(binaries), probes, strict=True))

    def _processes(self, binaries: Mapping[str, Path] | None = None) -> Sequence[ManagedProcess]:
        """Without ``binaries`` good for finding and stopping only."""

        def process(name: str, flags: Sequence[str], grace: float) -> ManagedProcess:
            program = str((binaries or {}).get(name, name))
            return ManagedProcess(name, [program, *flags], home=self._settings.home, env=_GO, grace=grace)

        return (
            process("etcd", self._etcd_flags(), 10.0),
            # With watches open it would take up to a minute to leave; what it acknowledged is in etcd.
            process(API_SERVER, self._api_server_flags(), 3.0),
            process(CONTROLLER_MANAGER, self._controller_manager_flags(), 3.0),
        )

    def _etcd_flags(self) -> list[str]:
        # A single member dials no peer and nobody dials it, but etcd insists on addresses with a port: nobody
        # listens on the advertised one; the peer listener takes any free port and demands our certificate.
        nowhere = "https://127.0.0.1:1"
        flags = [
            "--name=local",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls=unix://{self._socket}",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--listen-peer-urls=https://127.0.0.1:0",
            f"--initial-advertise-peer-urls={nowhere}",
            f"--initial-cluster=local={nowhere}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={self._pki.authority}",
            f"--peer-cert-file={self._pki.certificate('etcd-peer')}",
            f"--peer-key-file={self._pki.key('etcd-peer')}",
            "--log-level=warn",
        ]
        return flags if self._fsync else [*flags, "--unsafe-no-fsync"]

    def _api_server_flags(self) -> list[str]:
        return [
            f"--etcd-servers=unix://{self._socket}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._ports()[API_SERVER]}",
            f"--tls-cert-file={self._pki.certificate('serving')}",
            f"--tls-private-key-file={self._pki.key('serving')}",
            f"--token-auth-file={self._tokens}",
            "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            f"--admission-control-config-file={Caller.of(self._settings).configuration}",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={self._pki.service_account_public_key}",
            f"--service-account-signing-key-file={self._pki.service_account_key}",
            f"--service-cluster-ip-range={_SERVICE_RANGE}",
            "--event-ttl=24h",
            "--profiling=false",
        ]

    def _controller_manager_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self._controller_kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports()[CONTROLLER_MANAGER]}",
            f"--tls-cert-file={self._pki.certificate('serving')}",
            f"--tls-private-key-file={self._pki.key('serving')}",
            f"--service-account-private-key-file={self._pki.service_account_key}",
            f"--root-ca-file={self._pki.authority}",
            "--use-service-account-credentials",
            # One replica: an election would only delay the first and every later start.
            "--leader-elect=false",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
            "--concurrent-gc-syncs=5",
            "--profiling=false",
        ]

    def _probe(self, url: str, *, uds: Path | None = None, token: bool = False) -> Probe:
        async def probe() -> bool:
            headers = {"Authorization": f"Bearer {self._token('admin')}"} if token else {}
            transport = httpx.AsyncHTTPTransport(
                uds=str(uds) if uds else None, verify=_trust(self._pki.authority), trust_env=False
            )
            try:
                async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
                    return (await client.get(url, headers=headers)).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

        return probe

    # -- ports and credentials --------------------------------------------------------------------------

    def _ports(self) -> Mapping[str, int]:
        known = endpoints.read(self._settings.run)
        return {name: int(known.get(name, 0)) for name in (API_SERVER, CONTROLLER_MANAGER)}

    async def _choose_ports(self) -> None:
        """Keep the ports of earlier starts unless a stranger has taken one meanwhile."""
        running = {process.name for process in self._processes() if process.running()}
        for name, port in self._ports().items():
            if name not in running and not is_free(port):
                await asyncio.to_thread(endpoints.announce, self._settings.run, name, free_port())

    @property
    def _tokens(self) -> Path:
        return self._folder / "tokens.csv"

    @property
    def _controller_kubeconfig(self) -> Path:
        return self._folder / "kubeconfig-controller-manager"

    def _token(self, uid: str) -> str:
        """The static token of this uid (Kubernetes: "Static token file": token, user, uid, groups)."""
        for line in self._tokens.read_text().splitlines():
            token, _user, known, *_groups = line.split(",")
            if known == uid:
                return token
        raise InvalidInput(f"{self._tokens} has no token of {uid}; delete it and run `triplane cluster up`")

    def _write_credentials(self) -> None:
        if not self._tokens.exists():
            write_private(
                self._tokens,
                f'{secrets.token_urlsafe(32)},admin,admin,"system:masters"\n'
                f"{secrets.token_urlsafe(32)},{_CONTROLLER_USER},controller-manager,\n",
            )
        authority = self._pki.authority.read_bytes()
        for path, user, uid in (
            (self.admin_kubeconfig, "admin", "admin"),
            (self._controller_kubeconfig, _CONTROLLER_USER, "controller-manager"),
        ):
            write_kubeconfig(path, server=self.server, authority=authority, user=user, token=self._token(uid))

    def _check_socket_path(self) -> None:
        if len(os.fsencode(self._socket)) > _SOCKET_LIMIT:
            raise InvalidInput(
                f"{self._socket} is longer than {_SOCKET_LIMIT} octets, too long for a Unix socket; "
                "set TRIPLANE_HOME to a shorter path"
            )

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """One ``up`` or ``down`` at a time for this home."""
        path = self._settings.run / "cluster.lock"
        descriptor = await lock(path)
        try:
            yield
        finally:
            os.close(descriptor)


_SERVING_NAMES = (
    "127.0.0.1",
    "10.96.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


async def ensure_running(process: ManagedProcess, probe: Probe, progress: Progress, *, seconds: float) -> None:
    """Start the process unless it runs with these very options, and wait until it serves."""
    if process.running() is not None and not process.is_current():
        progress(f"{process.name} runs with other options; restarting it")
        await process.stop()
    if process.running() is None:
        process.start()
        progress(f"{process.name} started, log {process.log}")
    await process.wait_ready(probe, seconds=seconds)


def _trust(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))
