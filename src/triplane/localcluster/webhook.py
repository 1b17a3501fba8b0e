"""Tells the API server where the admission webhook is, and waits until it is asked.

The configuration is static (``manifests/webhook``): it stays when the webhook goes, so creates fail closed. Only
the address and the authority of its certificate are filled in here. Registered is not "in force": the API server
learns of it from its own watch a moment later, so a Task that depends on itself is tried until it is refused.
"""

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import yaml

from triplane import endpoints
from triplane.api.text import API_VERSION
from triplane.errors import Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.install import SYSTEM_NAMESPACE

NAME = "admission"
"""Of the process, and of its address in ``run/endpoints.json``."""
CONFIGURATION = Path(__file__).parent / "manifests" / "webhook" / "admission.yaml"
_PATHS = {"graph.admission.triplane.dev": "/graph", "clock.admission.triplane.dev": "/clock"}
_PROBE = "triplane-webhook-probe"
_IN_FORCE_SECONDS = 30.0
_LOOK_SECONDS = 2.0


def configuration(url: str, authority: bytes) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration of a webhook at ``url``, whose certificate ``authority`` (PEM) signed."""
    document: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    bundle = base64.b64encode(authority).decode()
    for webhook in document["webhooks"]:
        webhook["clientConfig"] = {"url": url + _PATHS[webhook["name"]], "caBundle": bundle}
    return document


def address(run: Path) -> str:
    """Where the webhook listens. Raises ``Unavailable`` when it has never run."""
    url = endpoints.read(run).get(NAME)
    if not isinstance(url, str):
        raise Unavailable(f"the admission webhook's address is not in {run / endpoints.FILE}; run `triplane up`")
    return url


async def install_webhook(server: ApiServer, url: str, authority: bytes) -> None:
    """Register the webhook that serves at ``url`` and return when the API server asks it. Raises ``Unavailable``."""
    await server.apply(configuration(url, authority))
    deadline = time.monotonic() + _IN_FORCE_SECONDS
    task = {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {"name": _PROBE, "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "graphRef": {"name": _PROBE},
            "objective": "Never stored",
            "agentRef": {"name": _PROBE},
            "dependsOn": [_PROBE],
        },
    }
    path = f"/apis/{API_VERSION}/namespaces/{SYSTEM_NAMESPACE}/tasks?dryRun=All"
    while True:
        answer = await server.request("POST", path, json=task)
        if "depends on itself" in answer.text:
            return
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"the API server does not ask the admission webhook at {url} after {_IN_FORCE_SECONDS:.0f} s: "
                f"{answer.text[:400]}"
            )
        await asyncio.sleep(0.05)


async def follow(server: ApiServer, run: Path, authority: bytes, known: str) -> None:
    """Register it again whenever it has moved: a restart keeps its port unless a stranger has taken it."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if (url := address(run)) != known:
            await server.apply(configuration(url, authority))
            known = url
