"""How to reach the API server: from a kubeconfig, or from inside a pod.

The file is the authority: whoever rotates the token writes the file, and we read it again when it has changed
or when the server refused what we hold.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from triplane.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Connection:
    """One server and one identity. Paths are of PEM files; ``authorization`` is the whole header value."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    authorization: str | None
    verify: bool


async def load(kubeconfig: Path | None) -> Configuration:
    """The client's configuration: the kubeconfig's current context, or the pod's ServiceAccount without one.

    Raises ``Unavailable`` when it cannot be read: a rotation may be under way.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
            )
    except Exception as error:  # the loader raises whatever YAML, base64 and the file system raise
        where = str(kubeconfig) if kubeconfig else "the pod's ServiceAccount folder"
        raise Unavailable(
            f"cannot read Kubernetes credentials from {where}: {error}; set TRIPLANE_KUBECONFIG"
        ) from error
    configuration.connection_pool_maxsize = 64
    # As Go clients do: proxy variables are for servers elsewhere, never for one on this machine.
    configuration.client_session_kwargs = {"trust_env": not is_loopback(configuration.host)}
    return configuration


def is_loopback(server: str) -> bool:
    """Whether that URL is of this machine."""
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def connect(kubeconfig: Path | None) -> Connection:
    """The same as plain values, for clients other than ours."""
    configuration = await load(kubeconfig)
    return Connection(
        server=configuration.host,
        ca_file=configuration.ssl_ca_cert,
        certificate_file=configuration.cert_file,
        key_file=configuration.key_file,
        authorization=await authorization(configuration),
        verify=configuration.verify_ssl,
    )


async def authorization(configuration: Configuration) -> str | None:
    """The Authorization header, refreshed by the loader's hook where there is one (exec plugins, pods)."""
    settings = await configuration.auth_settings()
    token: str | None = (settings.get("BearerToken") or {}).get("value")
    return token


def changed_at(kubeconfig: Path | None) -> int:
    """When the file was last replaced (ns); 0 without one or while it is being replaced."""
    if kubeconfig is None:
        return 0
    try:
        return kubeconfig.stat().st_mtime_ns
    except OSError:
        return 0
