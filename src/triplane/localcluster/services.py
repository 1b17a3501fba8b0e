"""What `triplane up` keeps running beside the control plane: Postgres, gateway, operator, runner.

Each child's environment is written out here on purpose: its own kubeconfig, its own settings, and nothing else of
ours. Secrets are files it opens itself.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from triplane.localcluster.database import postmaster_ready
from triplane.localcluster.files import merge_json, read_json
from triplane.localcluster.ports import free_port, is_free
from triplane.localcluster.process import ManagedProcess, Probe
from triplane.settings import Settings

_DATABASE = ("database_host", "database_port", "database_name", "database_password")
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


def services(settings: Settings) -> Sequence[Service]:
    """In the order in which they start. Chooses and keeps the gateway's port."""
    gateway = gateway_url(settings)
    kept = () if settings.database_host else (_postgres(settings),)
    return (
        *kept,
        _http(
            settings,
            "gateway",
            {
                "kubeconfig": settings.secrets / "kubeconfig-gateway",
                "gateway_port": int(gateway.rpartition(":")[2]),
            },
            (*_DATABASE, "lease_seconds", "origin_host", "log_level"),
        ),
        _http(
            settings,
            "operator",
            {"kubeconfig": settings.secrets / "kubeconfig-operator", "gateway_url": gateway},
            (*_DATABASE, "namespace", "lease_seconds", "origin_host", "log_level"),
        ),
        _runner(settings, gateway),
    )


def gateway_url(settings: Settings) -> str:
    """``http://127.0.0.1:<port>``, kept in ``run/endpoints.json``; another port if a stranger has taken it."""
    path = settings.run / "endpoints.json"
    known = str(read_json(path).get("gateway", ""))
    if settings.gateway_port:
        chosen = settings.gateway_port
    else:
        chosen = int(known.rpartition(":")[2] or 0)
        ours = ManagedProcess("gateway", ["gateway"], home=settings.home).running() is not None
        if not ours and not is_free(chosen):
            chosen = free_port()
    url = f"http://127.0.0.1:{chosen}"
    if url != known:
        merge_json(path, {"gateway": url})
    return url


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


def _python(settings: Settings, name: str, module: str, env: Mapping[str, str]) -> ManagedProcess:
    # -P: the folder the user happens to stand in is not a place to import from.
    return ManagedProcess(name, [sys.executable, "-P", "-m", module], home=settings.home, env=env, grace=15.0)


def _http(settings: Settings, name: str, own: Mapping[str, Any], passed: Sequence[str]) -> Service:
    process = _python(settings, name, f"triplane.{name}", _environment(settings, own, passed))
    return Service(process, _get(settings, name, "/readyz"), _get(settings, name, "/healthz"))


def _get(settings: Settings, name: str, path: str) -> Probe:
    async def probe() -> bool:
        url = read_json(settings.run / "endpoints.json").get(name)
        if not isinstance(url, str):
            return False
        try:
            async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
                return (await client.get(url + path)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return probe


def _runner(settings: Settings, gateway: str) -> Service:
    passed = ("programs", "runner", "runner_slots", "allow_unisolated", "lease_seconds", "log_level")
    process = _python(settings, "runner", "triplane.session", _environment(settings, {"gateway_url": gateway}, passed))

    async def ready() -> bool:
        before = process.running()
        await asyncio.sleep(_SETTLE_SECONDS)  # it serves nothing; one that cannot start ends at once
        return before is not None and process.running() == before

    return Service(process, ready)
