"""Reads kubeconfig files the way kubectl does, as far as a command-line client needs it.

Covered: merging of several files (first one wins), contexts, tokens and token files, client certificates, CA data and
files, exec credential plugins (client.authentication.k8s.io/v1 and v1beta1). What is not covered (proxies, legacy
auth providers) is marked ``exotic``: then `reader` lets kubectl itself make the call.
"""

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.errors import InvalidInput, Unavailable

_PLUGIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Access:
    """One context: where the API server is and how the caller proves who they are."""

    files: tuple[Path, ...]
    context: str
    server: str
    namespace: str
    token: str | None
    authority: str | None
    """PEM of the CA; the system's trust store when absent."""
    certificate: tuple[str, str] | None
    """Client certificate and key, PEM."""
    verify: bool = True
    tls_server_name: str | None = None
    exotic: str | None = None
    """What this reader does not speak, if anything."""

    def tls(self) -> ssl.SSLContext:
        """The TLS context for this server and identity."""
        context = ssl.create_default_context(cadata=self.authority)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            # ssl loads key pairs from files only; the file lives as long as the call.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
                pair.write("\n".join(self.certificate))
                pair.flush()
                context.load_cert_chain(pair.name)
        return context


def load(files: Sequence[Path], context: str | None = None) -> Access:
    """The access the named (or the current) context gives.

    Raises ``InvalidInput`` for a file that is not a kubeconfig or a context that does not exist, ``Unavailable`` when
    an exec plugin fails.
    """
    documents = [(path, _document(path)) for path in files]
    chosen = context or next((d["current-context"] for _, d in documents if d.get("current-context")), None)
    where = ", ".join(str(path) for path in files)
    if chosen is None:
        raise InvalidInput(f"no current context in {where}: name one with --context")
    entry, _ = _entry(documents, "contexts", "context", str(chosen), where)
    cluster, cluster_file = _entry(documents, "clusters", "cluster", str(entry.get("cluster")), where)
    user, user_file = _entry(documents, "users", "user", str(entry.get("user")), where)
    credentials = _run_plugin(user["exec"], cluster) if "exec" in user else {}
    certificate = _material(user, "client-certificate", user_file) or credentials.get("clientCertificateData")
    key = _material(user, "client-key", user_file) or credentials.get("clientKeyData")
    exotic = next((f"users.{name}" for name in ("auth-provider", "username", "as") if name in user), None)
    if "proxy-url" in cluster:
        exotic = "clusters.proxy-url"
    return Access(
        files=tuple(files),
        context=str(chosen),
        server=str(cluster.get("server", "")).rstrip("/"),
        namespace=str(entry.get("namespace") or "default"),
        token=_token(user, user_file) or credentials.get("token"),
        authority=_material(cluster, "certificate-authority", cluster_file),
        certificate=(str(certificate), str(key)) if certificate and key else None,
        verify=not cluster.get("insecure-skip-tls-verify", False),
        tls_server_name=cluster.get("tls-server-name"),
        exotic=exotic,
    )


def _document(path: Path) -> Mapping[str, Any]:
    import yaml  # noqa: PLC0415 - a slow import that only this needs

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read as a kubeconfig: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a kubeconfig: name another with --kubeconfig")
    return document


def _entry(
    documents: Sequence[tuple[Path, Mapping[str, Any]]], plural: str, singular: str, name: str, where: str
) -> tuple[Mapping[str, Any], Path]:
    for path, document in documents:
        for item in document.get(plural) or ():
            if item.get("name") == name:
                return item.get(singular) or {}, path
    raise InvalidInput(f"no {singular} {name!r} in {where}")


def _material(section: Mapping[str, Any], key: str, beside: Path) -> str | None:
    """PEM text from ``<key>-data`` or the file ``<key>`` names, relative to the kubeconfig."""
    try:
        if data := section.get(f"{key}-data"):
            return base64.b64decode(data, validate=True).decode()
        if path := section.get(key):
            return (beside.parent / str(path)).read_text(encoding="ascii")
    except (OSError, ValueError, binascii.Error) as error:
        raise InvalidInput(f"{key} in {beside} cannot be read: {error}") from error
    return None


def _token(user: Mapping[str, Any], beside: Path) -> str | None:
    if path := user.get("tokenFile"):
        try:
            return (beside.parent / str(path)).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"tokenFile in {beside} cannot be read: {error}") from error
    token = user.get("token")
    return str(token) if token else None


def _run_plugin(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``status`` an exec credential plugin answers (client-go credential plugins)."""
    version = str(plugin.get("apiVersion", "client.authentication.k8s.io/v1"))
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    if plugin.get("provideClusterInfo"):
        request["spec"] = {"interactive": False, "cluster": {"server": cluster.get("server")}}
    env = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(request)}
    env.update({str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()})
    argv = [str(plugin["command"]), *(str(arg) for arg in plugin.get("args") or ())]
    try:
        done = subprocess.run(argv, env=env, capture_output=True, timeout=_PLUGIN_SECONDS, check=True)
        status = json.loads(done.stdout).get("status")
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
        raise Unavailable(f"the credential plugin {argv[0]} of the kubeconfig failed: {error}") from error
    return status if isinstance(status, dict) else {}
