"""Reads single objects, uncached, as the account of a kubeconfig or of the pod: all the admission webhook needs.

The operator's client (``cluster.py``) takes a second to import; a webhook is restarted while people wait for it.
A token is read again when its file changes or when the server refuses it, so rotation needs no restart.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from triplane.adapters.kube.kubeconfig import Access, load
from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION
from triplane.errors import Forbidden, InvalidInput, Unavailable

SECONDS = 3.0
"""Longest wait for one answer."""
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Lookup:
    """One account's view of one API server. Use it in one event loop."""

    def __init__(self, kubeconfig: Path | None) -> None:
        """``kubeconfig``: None for the pod's ServiceAccount (Kubernetes, "Accessing the API from a Pod")."""
        self._source = kubeconfig or _POD / "token"
        self._kubeconfig = kubeconfig
        self._client: httpx.AsyncClient | None = None
        self._read_at = 0

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The object as stored now; None when there is none. Raises ``Unavailable``, ``Forbidden``."""
        path = f"/apis/{API_VERSION}/namespaces/{quote(namespace, safe='')}/{KINDS[kind].info.plural}/{name}"
        answer = await self._send(path)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._read_at = 0
            answer = await self._send(path)
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            return found
        if answer.status_code == httpx.codes.NOT_FOUND and _names(answer, name):
            return None
        raise _refused(answer, f"reading {kind} {namespace}/{name}")

    async def fetch(self, path: str, query: Mapping[str, str | int]) -> dict[str, Any]:
        """GET of a collection. Raises ``Unavailable``, ``Forbidden``."""
        where = f"{path}?{urlencode(query)}"
        answer = await self._send(where)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._read_at = 0
            answer = await self._send(where)
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            return found
        raise _refused(answer, f"reading {path}")

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, quiet: float
    ) -> AsyncIterator[AsyncIterator[str] | None]:
        """The lines of a watch until the server ends it; None when its resourceVersion is too old (410).

        Raises ``Unavailable`` when it breaks, or says nothing for ``quiet`` seconds; ``Forbidden``.
        """
        client = await self._connected()
        timeout = httpx.Timeout(SECONDS, read=quiet)
        try:
            async with client.stream("GET", f"{path}?{urlencode(query)}", timeout=timeout) as answer:
                if answer.status_code == httpx.codes.GONE:
                    yield None
                elif answer.is_success:
                    yield answer.aiter_lines()
                else:
                    await answer.aread()
                    if answer.status_code == httpx.codes.UNAUTHORIZED:
                        self._read_at = 0
                    raise _refused(answer, f"watching {path}")
        except httpx.HTTPError as error:
            said = error if str(error) else type(error).__name__
            raise Unavailable(f"the watch of {path} broke off: {said}") from error

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(self, path: str) -> httpx.Response:
        client = await self._connected()
        try:
            return await client.get(path)
        except httpx.HTTPError as error:
            said = error if str(error) else type(error).__name__
            raise Unavailable(f"cannot reach the API server {client.base_url}: {said}") from error

    async def _connected(self) -> httpx.AsyncClient:
        try:
            changed = self._source.stat().st_mtime_ns
        except OSError as error:
            raise Unavailable(f"no Kubernetes credentials: {self._source}: {error.strerror}") from error
        if self._client is None or changed != self._read_at:
            access = await asyncio.to_thread(self._access)
            await self.close()
            headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
            # As Go clients do inside a cluster: proxy variables are for servers elsewhere.
            self._client = httpx.AsyncClient(
                base_url=access.server, verify=access.tls(), headers=headers, timeout=SECONDS, trust_env=False
            )
            self._read_at = changed
        return self._client

    def _access(self) -> Access:
        if self._kubeconfig is not None:
            access = load([self._kubeconfig])
            if access.exotic is not None:
                raise InvalidInput(f"{self._kubeconfig} uses {access.exotic}; give this account a bearer token")
            return access
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise Unavailable("neither in a pod nor with a kubeconfig: set TRIPLANE_KUBECONFIG")
        return Access(
            files=(),
            context="pod",
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            namespace=(_POD / "namespace").read_text().strip(),
            token=(_POD / "token").read_text().strip(),
            authority=(_POD / "ca.crt").read_text(),
            certificate=None,
        )


def _refused(answer: httpx.Response, what: str) -> Forbidden | Unavailable:
    refused = answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
    message = f"{what}: the API server answered {answer.status_code}: {_said(answer)}"
    return Forbidden(message) if refused else Unavailable(message)


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _names(answer: httpx.Response, name: str) -> bool:
    """A 404 that names the object; without it the server does not know the kind, and nobody must take that for gone."""
    try:
        return bool(answer.json()["details"]["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False
