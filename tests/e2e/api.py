"""A tiny real client of the API server: one kubeconfig, one user, plain HTTP answers.

The product's own client hides refusals behind exceptions; these tests are about the refusals.
"""

import base64
import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION

FORCED_APPLY = {"fieldManager": "test", "force": "true"}


class Api:
    """The API server as one user sees it. Every method returns the response, refused or not."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        tls = ssl.create_default_context(cadata=_material(cluster, "certificate-authority", kubeconfig))
        headers = {}
        if "client-certificate" in user or "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
                pair.write(_material(user, "client-certificate", kubeconfig))
                pair.write(_material(user, "client-key", kubeconfig))
                pair.flush()
                tls.load_cert_chain(pair.name)
        else:
            token = user.get("token") or _beside(kubeconfig, user["tokenFile"]).read_text().strip()
            headers["Authorization"] = f"Bearer {token}"
        self.kubeconfig = kubeconfig
        self._http = httpx.Client(base_url=cluster["server"], verify=tls, headers=headers, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Any request; ``path`` from the server's root."""
        return self._http.request(method, path, **arguments)

    def username(self) -> str:
        """Who the API server says we are (SelfSubjectReview)."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json=body)
        return str(answer.raise_for_status().json()["status"]["userInfo"]["username"])

    def create(self, obj: Mapping[str, Any], **query: str) -> httpx.Response:
        return self.request("POST", _path(obj["kind"], obj["metadata"]["namespace"]), json=obj, params=query)

    def post(self, kind: str, namespace: str, body: bytes) -> httpx.Response:
        """Create from raw octets, for what no JSON library writes."""
        headers = {"Content-Type": "application/json"}
        return self.request("POST", _path(kind, namespace), content=body, headers=headers)

    def list(self, kind: str, namespace: str) -> httpx.Response:
        return self.request("GET", _path(kind, namespace))

    def get(self, obj: Mapping[str, Any]) -> httpx.Response:
        return self.request("GET", _at(obj))

    def replace(self, obj: Mapping[str, Any], *, status: bool = False) -> httpx.Response:
        return self.request("PUT", _at(obj, status=status), json=obj)

    def merge(
        self, obj: Mapping[str, Any], patch: Mapping[str, Any], *, status: bool = False, **query: str
    ) -> httpx.Response:
        """JSON merge patch (RFC 7386)."""
        headers = {"Content-Type": "application/merge-patch+json"}
        content = json.dumps(patch)
        return self.request("PATCH", _at(obj, status=status), content=content, headers=headers, params=query)

    def apply(self, obj: Mapping[str, Any], *, status: bool = False) -> httpx.Response:
        """Server-side apply, forced."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        content = json.dumps(obj)
        return self.request("PATCH", _at(obj, status=status), content=content, headers=headers, params=FORCED_APPLY)

    def delete(self, obj: Mapping[str, Any]) -> httpx.Response:
        return self.request("DELETE", _at(obj))


def resource(kind: str, namespace: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    """An object as a user would write it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": dict(spec),
    }


def _path(kind: str, namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{KINDS[kind].info.plural}"


def _at(obj: Mapping[str, Any], *, status: bool = False) -> str:
    metadata = obj["metadata"]
    tail = "/status" if status else ""
    return f"{_path(obj['kind'], metadata['namespace'])}/{metadata['name']}{tail}"


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _material(section: Mapping[str, Any], name: str, kubeconfig: Path) -> str:
    if inline := section.get(f"{name}-data"):
        return base64.b64decode(inline).decode()
    return _beside(kubeconfig, section[name]).read_text()


def _beside(kubeconfig: Path, path: str) -> Path:
    return kubeconfig.parent / path
