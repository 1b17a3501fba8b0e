"""What `triplane up` keeps running beside the control plane: Postgres, admission webhook, gateway, operator, runner.

Each child's environment is written out here on purpose: its own kubeconfig, its own settings, and nothing else of
ours. Secrets are files it opens itself.
"""

import asyncio
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from triplane import endpoints
from triplane.localcluster import webhook
from triplane.localcluster.caller import Caller
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.identity import age_seconds
from triplane.localcluster.process import ManagedProcess, Probe
from triplane.settings import Settings

_COMMON = ("gateway_url", "lease_seconds", "log_level")
_DATABASE = ("database_host", "database_port", "database_name", "database_password", "graph")
_CONTENT = (
    *("content", "content_endpoint", "content_region", "content_access_key", "content_secret_key", "content_http"),
    *("blob_octets", "run_octets", "collect_seconds", "collect_grace_seconds"),
    *("scrub_seconds", "scrub_octets_per_second"),
)
_NOTARY = ("anchors", "witnesses", "witness_quorum", "checkpoint_seconds", "accept_rollback")
_VERIFIER = ("verify_entries_per_second", "verify_rest_seconds")
_OPERATOR = ("namespace", "accept_restore", "authority", "accounts", "max_concurrent_sessions", *_NOTARY, *_VERIFIER)
_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep, and how to tell that it serves."""

    process: ManagedProcess
    ready: Probe
    alive: Probe | None = None
    """When it keeps saying no, a restart is the remedy; None: being there is enough."""
    ready_seconds: float = 60.0

    @property
    def name(self) -> str:
        return self.process.name


def services(settings: Settings, release: str = "") -> Sequence[Service]:
    """In the order in which they start. One that was started from another ``release`` is not current (for finding
    and stopping them it does not matter)."""
    kept = () if settings.database_host else (_postgres(settings),)
    gateway = {"kubeconfig": settings.secrets / "kubeconfig-gateway"}
    operator = {"kubeconfig": settings.secrets / "kubeconfig-operator"}
    return (
        *kept,
        *(admission(settings, number + 1, release) for number in range(settings.admission_replicas)),
        _http(settings, release, "gateway", gateway, ("gateway_port", *_CONTENT, *_DATABASE, *_COMMON)),
        _http(settings, release, "operator", operator, (*_OPERATOR, *_DATABASE, *_COMMON)),
        _runner(settings, release),
    )


def admission(settings: Settings, replica: int = 1, release: str = "") -> Service:
    """One replica of the admission webhook, with a certificate of its own authority."""
    certificates = Certificates.of(settings)
    own = {
        "kubeconfig": settings.secrets / "kubeconfig-admission",
        "admission_certificate": certificates.serving,
        "admission_key": certificates.serving,
        "admission_caller": Caller.of(settings).token,
        "admission_replica": None if replica == 1 else replica,
    }
    env = _environment(settings, own, ("admission_port", "admission_replicas", "authority", "gateway_url", "log_level"))
    process = _python(settings, release, webhook.process_name(replica), "triplane.admission", env)
    address = f"{webhook.NAME}-{replica}"
    ready = _get(settings, address, "/readyz", certificates.trusted)
    return Service(process, ready, _get(settings, address, "/healthz", certificates.trusted))


def _environment(settings: Settings, own: Mapping[str, Any], passed: Sequence[str]) -> dict[str, str]:
    """``own`` settings, and those of ours named in ``passed`` that differ from the default."""
    values = dict(own)
    for name in passed:
        value = getattr(settings, name)
        if value != type(settings).model_fields[name].default:
            values[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return {f"TRIPLANE_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def _postgres(settings: Settings) -> Service:
    process = ManagedProcess(
        "postgres",
        [sys.executable, "-P", "-m", "triplane.localcluster.database", "serve"],
        home=settings.home,
        grace=20.0,
        stop_signal=signal.SIGINT,  # "fast shutdown": sessions are cut, everything acknowledged is kept
    )

    async def ready() -> bool:
        identity = process.running()
        return identity is not None and await asyncio.to_thread(postmaster_ready, settings.pg, identity.pid)

    return Service(process, ready)


def postmaster_ready(folder: Path, pid: int) -> bool:
    """Whether this server accepts connections, as pg_ctl(1) tells: line 8 of ``postmaster.pid``."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _python(settings: Settings, release: str, name: str, module: str, env: Mapping[str, str]) -> ManagedProcess:
    # -P: the folder the user happens to stand in is not a place to import from.
    return ManagedProcess(
        name, [sys.executable, "-P", "-m", module], home=settings.home, env=env, grace=15.0, release=release
    )


def _http(settings: Settings, release: str, name: str, own: Mapping[str, Any], passed: Sequence[str]) -> Service:
    process = _python(settings, release, name, f"triplane.{name}", _environment(settings, own, passed))
    return Service(process, _get(settings, name, "/readyz"), _get(settings, name, "/healthz"))


def _get(settings: Settings, name: str, path: str, authority: Path | None = None) -> Probe:
    async def probe() -> bool:
        url = endpoints.read(settings.run).get(name)
        if not isinstance(url, str):
            return False
        try:
            verify = True if authority is None else ssl.create_default_context(cafile=str(authority))
            async with httpx.AsyncClient(timeout=5.0, trust_env=False, verify=verify) as client:
                return (await client.get(url + path)).status_code == httpx.codes.OK
        except (httpx.HTTPError, OSError):  # OSError: the authority is not there yet
            return False

    return probe


def _runner(settings: Settings, release: str) -> Service:
    passed = ("programs", "shared", "runner", "runner_slots", "allow_unisolated", *_COMMON)
    process = _python(settings, release, "runner", "triplane.session", _environment(settings, {}, passed))

    async def ready() -> bool:
        # It serves nothing; one that cannot start ends at once.
        identity = process.running()
        return identity is not None and age_seconds(identity) >= _SETTLE_SECONDS

    return Service(process, ready)
