"""A small synchronous client of the API server for the command line: read, and server-side apply.

The operator's client (`cluster.py`) takes a second to import; a command may not. HTTP by httpx; kubeconfigs it does
not speak go through ``kubectl``.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from triplane.adapters.kube.kubeconfig import Access, load
from triplane.errors import Conflict, Forbidden, InvalidInput, NotFound, TriplaneError, Unavailable

GROUP_PATH = "/apis/triplane.dev/v1alpha1"
_PAGE = 500
_SECONDS = 30.0

PLURALS: Mapping[str, str] = {
    "Graph": "graphs",
    "Node": "nodes",
    "Task": "tasks",
    "Agent": "agents",
    "Harness": "harnesses",
    "Capability": "capabilities",
    "Guideline": "guidelines",
    "Tool": "tools",
    "Policy": "policies",
    "Workflow": "workflows",
    "AgentSession": "agentsessions",
    "Artifact": "artifacts",
    "Review": "reviews",
}


class Reader:
    """One caller's view of one API server. Raises the errors of ``triplane.errors``."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._client: httpx.Client | None = None
        if access.exotic is None:
            headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
            self._client = httpx.Client(
                base_url=access.server, verify=access.tls(), headers=headers, timeout=_SECONDS, trust_env=False
            )

    @classmethod
    def open(cls, files: Sequence[Path], context: str | None = None) -> "Reader":
        """Read the kubeconfig and prepare to connect; nothing is sent yet."""
        return cls(load(files, context))

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object; ``NotFound`` names it."""
        return self.raw(f"{_collection(kind, namespace)}/{quote(name, safe='')}")

    def list(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """All objects of the kind (in all namespaces when None), in the server's order, page by page."""
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            query = urlencode({"limit": _PAGE} | ({"continue": token} if token else {}))
            page = self.raw(f"{_collection(kind, namespace)}?{query}")
            items += page["items"]
            token = page["metadata"].get("continue") or ""
            if not token:
                return items

    def raw(self, path: str) -> dict[str, Any]:
        """GET of any path of the API server."""
        if self._client is None:
            return self._kubectl(["get", "--raw", path])
        return self._send("GET", path)

    def apply(self, manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Server-side apply of one object as this caller; returns what the server holds afterwards.

        Kubernetes API concepts, "Server-Side Apply": an identical apply changes nothing, not even resourceVersion.
        """
        if self._client is None:
            argv = ["apply", "--server-side", "--force-conflicts", "--field-manager", manager, "-o", "json", "-f", "-"]
            return self._kubectl(argv, stdin=json.dumps(manifest))
        metadata = manifest["metadata"]
        if manifest["apiVersion"] == "v1" and manifest["kind"] == "Namespace":
            path = f"/api/v1/namespaces/{metadata['name']}"
        else:
            path = f"{_collection(manifest['kind'], metadata.get('namespace', 'default'))}/{metadata['name']}"
        query = urlencode({"fieldManager": manager, "force": "true", "fieldValidation": "Strict"})
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._send("PATCH", f"{path}?{query}", content=json.dumps(manifest), headers=headers)

    def create(self, manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """Make one object as this caller; with ``generateName`` the server names it. Returns what it stored."""
        if self._client is None:
            argv = ["create", "--field-manager", manager, "--validate=strict", "-o", "json", "-f", "-"]
            return self._kubectl(argv, stdin=json.dumps(manifest))
        path = _collection(manifest["kind"], manifest["metadata"].get("namespace", "default"))
        query = urlencode({"fieldManager": manager, "fieldValidation": "Strict"})
        headers = {"Content-Type": "application/json"}
        return self._send("POST", f"{path}?{query}", content=json.dumps(manifest), headers=headers)

    def dry_run(self, manifest: Mapping[str, Any], *, update: bool) -> tuple[int, dict[str, Any]]:
        """Ask the server what it would say to this create or replace (Kubernetes API concepts, "Dry-run"): HTTP status,
        and the object or the ``metav1.Status``. Nothing is stored, whatever it says."""
        if self._client is None:
            return self._kubectl_dry_run(manifest, "replace" if update else "create")
        metadata = manifest["metadata"]
        path = _collection(manifest["kind"], metadata.get("namespace", "default"))
        path += f"/{quote(metadata['name'], safe='')}" if update else ""
        query = urlencode({"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "triplane-why-denied"})
        headers = {"Content-Type": "application/json"}
        answer = self._request(
            "PUT" if update else "POST", f"{path}?{query}", content=json.dumps(manifest), headers=headers
        )
        return answer.status_code, _json_of(answer)

    def _kubectl_dry_run(self, manifest: Mapping[str, Any], verb: str) -> tuple[int, dict[str, Any]]:
        """Without a status code: what kubectl says is all there is."""
        try:
            argv = [verb, "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"]
            return 200, self._kubectl(argv, stdin=json.dumps(manifest))
        except (Forbidden, NotFound, Unavailable) as error:
            code = 403 if isinstance(error, Forbidden) else 422
            return code, {"kind": "Status", "code": code, "message": str(error)}

    def _send(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        answer = self._request(method, path, **kwargs)
        body = _json_of(answer)
        if answer.is_success:
            return body
        raise _error(answer.status_code, str(body.get("message") or answer.reason_phrase), self.access)

    def _request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        assert self._client is not None
        extensions = {"sni_hostname": self.access.tls_server_name} if self.access.tls_server_name else {}
        try:
            return self._client.request(method, path, extensions=extensions, **kwargs)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"cannot reach the API server {self.access.server}: {error}; is it running (`triplane up`)?"
            ) from error

    def _kubectl(self, arguments: Sequence[str], stdin: str | None = None) -> dict[str, Any]:
        files = ":".join(str(path) for path in self.access.files)
        argv = ["kubectl", "--context", self.access.context, *arguments]
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False, env=_env(files)
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"kubectl is needed for {self.access.exotic} and failed: {error}") from error
        if done.returncode:
            message = done.stderr.strip() or f"kubectl exited with {done.returncode}"
            if "NotFound" in message or "not found" in message:
                raise NotFound(message)
            raise Forbidden(message) if "Forbidden" in message else Unavailable(message)
        loaded: dict[str, Any] = json.loads(done.stdout)
        return loaded


def _json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"message": answer.text[:200]}


def _collection(kind: str, namespace: str | None) -> str:
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{GROUP_PATH}{scope}/{PLURALS[kind]}"


def _env(files: str) -> dict[str, str]:
    import os  # noqa: PLC0415 - only the fallback needs it

    return {**os.environ, "KUBECONFIG": files}


def _error(code: int, message: str, access: Access) -> TriplaneError:
    if code == 401:
        return Forbidden(f"the API server does not know this caller (context {access.context}): renew its token")
    if code == 403:
        return Forbidden(message)
    if code == 404:
        return NotFound(message)
    if code == 409:
        return Conflict(message)
    if code in (400, 413, 422):
        return InvalidInput(message)
    return Unavailable(f"the API server {access.server} answered {code}: {message}")
