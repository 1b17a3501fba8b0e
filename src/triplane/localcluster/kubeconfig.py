"""Kubeconfig files (``client.authentication.k8s.io``, ``v1`` Config) that carry one bearer token each."""

import base64
from pathlib import Path

import yaml

from triplane.localcluster.files import private_directory, write_private


def write_kubeconfig(
    path: Path, *, server: str, authority: bytes | None, user: str, token: str, namespace: str = "default"
) -> bool:
    """Write a kubeconfig with one context, mode 0600; False if the file says so already.

    ``authority`` is the server's CA in PEM; without it the machine's own trust store decides.
    """
    cluster: dict[str, str] = {"server": server}
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "triplane", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": user, "context": {"cluster": "triplane", "user": user, "namespace": namespace}}],
        "current-context": user,
    }
    private_directory(path.parent)
    return write_private(path, yaml.safe_dump(document, sort_keys=False))
