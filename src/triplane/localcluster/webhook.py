"""Tells the API server where the admission webhook is and whom to trust, and waits until it is asked.

The configuration is static (``manifests/webhook``): it stays when the webhook goes, so creates fail closed. Only
the address and the trusted authorities are filled in here. Registered is not "in force": the API server learns of
it from its own watch a moment later, so the path carries a mark of the configuration, and a probe that is never stored
is tried until it is refused with that mark.
"""

import asyncio
import base64
import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

import yaml

from triplane import endpoints
from triplane.api.text import API_VERSION, SYSTEM_NAMESPACE
from triplane.errors import TriplaneError, Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.controlplane import LocalCluster
from triplane.settings import Settings

NAME = "admission"
"""Of the process, and of the address its replicas share in ``run/endpoints.json``."""
CONFIGURATION = Path(__file__).parent / "manifests" / "webhook" / "admission.yaml"
_PATHS = {"governance.admission.triplane.dev": "/review/{}", "clock.admission.triplane.dev": "/clock"}
_PROBE = "triplane-webhook-probe"
_IN_FORCE_SECONDS = 30.0
_LOOK_SECONDS = 2.0


def process_name(replica: int) -> str:
    """Name of the process of a replica, from 1."""
    return NAME if replica == 1 else f"{NAME}-{replica}"


def is_replica(process: str) -> bool:
    """Whether a process of this name is one of the webhook's."""
    return process == NAME or process.startswith(f"{NAME}-")


def configuration(url: str, bundle: bytes) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration of a webhook at ``url``, whose certificate one of ``bundle`` (PEM) signed."""
    document: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    encoded = base64.b64encode(bundle).decode()
    for webhook in document["webhooks"]:
        path = _PATHS[webhook["name"]].format(mark(url, bundle))
        webhook["clientConfig"] = {"url": url + path, "caBundle": encoded}
    return document


def mark(url: str, bundle: bytes) -> str:
    """Tells this configuration from every other, in 16 characters."""
    return hashlib.sha256(b"\0".join((CONFIGURATION.read_bytes(), url.encode(), bundle))).hexdigest()[:16]


def address(run: Path) -> str:
    """Where the webhook listens. Raises ``Unavailable`` when it has never run."""
    url = endpoints.read(run).get(NAME)
    if not isinstance(url, str):
        raise Unavailable(f"the admission webhook's address is not in {run / endpoints.FILE}; run `triplane up`")
    return url


async def install_webhook(server: ApiServer, url: str, bundle: bytes) -> None:
    """Register the webhook that serves at ``url`` and return when the API server asks it, trusting ``bundle``.
    Raises ``Unavailable``."""
    await server.apply(configuration(url, bundle))
    sought = f"configuration {mark(url, bundle)} is in force"
    deadline = time.monotonic() + _IN_FORCE_SECONDS
    graph = {
        "apiVersion": API_VERSION,
        "kind": "Graph",
        "metadata": {"name": _PROBE, "namespace": SYSTEM_NAMESPACE},
        "spec": {},
    }
    path = f"/apis/{API_VERSION}/namespaces/{SYSTEM_NAMESPACE}/graphs?dryRun=All"
    while True:
        answer = await server.request("POST", path, json=graph)
        if sought in answer.text:
            return
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"the API server does not ask the admission webhook at {url} after {_IN_FORCE_SECONDS:.0f} s: "
                f"{answer.text[:400]}"
            )
        await asyncio.sleep(0.05)


async def keep_webhook(settings: Settings, cluster: LocalCluster, known: str) -> None:
    """Rotate its certificates, and register it again whenever they or its address change. ``known``: the ``mark`` of
    what is in force. Never returns; an API server that is down is asked again.

    A restarted webhook keeps its port unless a stranger has taken it.
    """
    certificates = Certificates.of(settings)
    look = min(_LOOK_SECONDS, settings.admission_certificate_seconds / 10)
    trusted: bytes | None = certificates.bundle() if known else None
    while True:
        await asyncio.sleep(look)
        with contextlib.suppress(TriplaneError):
            while certificates.advance(trusted):
                pass
            url, bundle = address(settings.run), certificates.bundle()
            if mark(url, bundle) == known:
                continue
            known, trusted = "", None
            async with cluster.api_server() as server:
                await install_webhook(server, url, bundle)
            known, trusted = mark(url, bundle), bundle
