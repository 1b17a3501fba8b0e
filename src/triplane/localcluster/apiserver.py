"""The few requests ``install`` makes of any API server: read, server-side apply, create.

Plain HTTPS, so that installing needs neither kubectl nor the Kubernetes client; only how to log in (which may
mean a cloud provider's plugin) is taken from the kube adapter.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from triplane.errors import Forbidden, InvalidInput, NotFound, TriplaneError, Unavailable

FIELD_MANAGER = "triplane-install"
_PATIENCE_SECONDS = 30.0
_TRANSIENT = frozenset({409, 429, 500, 502, 503, 504})


class ApiServer:
    """One server as one user. Open it with ``async with``."""

    def __init__(
        self, server: str, *, authority: bytes | None, token: str | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.url = server
        self.authority = authority
        verify = tls or ssl.create_default_context(cadata=authority.decode() if authority else None)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # As Go clients do: proxy variables are for servers elsewhere, never for one on this machine.
        local = httpx.URL(server).host in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx.AsyncClient(
            base_url=server, verify=verify, headers=headers, timeout=30.0, trust_env=not local
        )
        self._plurals: dict[str, dict[str, tuple[str, bool]]] = {}

    @classmethod
    async def from_kubeconfig(cls, kubeconfig: Path | None) -> "ApiServer":
        """The server and user of the current context. Raises ``Unavailable`` when it cannot be read."""
        # It imports the Kubernetes client, which takes a second: only where it is needed.
        from triplane.adapters.kube.login import connect  # noqa: PLC0415

        found = await connect(kubeconfig)
        authority = await asyncio.to_thread(Path(found.ca_file).read_bytes) if found.ca_file else None
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if found.certificate_file:
            tls.load_cert_chain(found.certificate_file, found.key_file)
        if not found.verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        token = (found.authorization or "").removeprefix("Bearer ") or None
        return cls(found.server, authority=authority, token=token, tls=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request, refused or not. Raises ``Unavailable`` when the server cannot be reached."""
        try:
            return await self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable(f"cannot reach the API server {self.url}: {error or type(error).__name__}") from error

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON at ``path``; raises the error that fits the refusal."""
        return _answer(await self.request("GET", path), f"read {path}")

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create something (also token and access requests)."""
        return _answer(await self.request("POST", path, json=body), f"create {path}")

    async def apply(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply (Kubernetes API reference, "Server-Side Apply"), taking ownership of our fields.

        Applying the same again changes nothing. Busy servers are asked again for 30 s.
        """
        path = await self.path_of(obj)
        what = f"apply {obj['kind']} {obj['metadata']['name']}"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            answer = await self.request(
                "PATCH",
                path,
                params={"fieldManager": FIELD_MANAGER, "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                content=json.dumps(obj),
            )
            if answer.status_code not in _TRANSIENT or time.monotonic() >= deadline:
                return _answer(answer, what)
            await asyncio.sleep(0.3)

    async def path_of(self, obj: Mapping[str, Any]) -> str:
        """The object's path, by discovery."""
        version = obj["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if obj["kind"] not in self._plurals.get(version, {}):
            listed = (await self.get(root))["resources"]
            self._plurals[version] = {
                entry["kind"]: (entry["name"], entry["namespaced"]) for entry in listed if "/" not in entry["name"]
            }
        try:
            plural, namespaced = self._plurals[version][obj["kind"]]
        except KeyError as error:
            raise InvalidInput(f"the API server {self.url} has no {obj['kind']} in {version}") from error
        metadata = obj["metadata"]
        scope = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{root}{scope}/{plural}/{metadata['name']}"


def _answer(response: httpx.Response, what: str) -> dict[str, Any]:
    if response.is_success:
        return dict(response.json())
    try:
        said = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        said = response.text[:400]
    message = f"the API server refused to {what} ({response.status_code}): {said}"
    raise _error_of(response.status_code)(message)


def _error_of(status: int) -> type[TriplaneError]:
    if status in {401, 403}:
        return Forbidden
    if status == httpx.codes.NOT_FOUND:
        return NotFound
    return Unavailable if status in _TRANSIENT else InvalidInput
