"""Where the command talks to: the API server by kubeconfig, the gateway by URL, both as the same caller."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from triplane.adapters.kube.kubeconfig import Access
    from triplane.adapters.kube.reader import Reader
    from triplane.cli.gateway import Gateway
    from triplane.settings import Settings

KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="Kubeconfig file.", show_default=False)]
ContextOption = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.", show_default=False)]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; default: the context's.", show_default=False),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="SEQ|TIME",
        help="As it was at this entry of the log, or day or time (2026-11-16T09:00:00Z).",
        show_default=False,
    ),
]


def settings() -> "Settings":
    """The settings from the environment; a wrong one is a usage error that names the variable."""
    from pydantic import ValidationError

    from triplane.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "TRIPLANE_" + "_".join(str(part) for part in first["loc"]).upper() if first["loc"] else ""
        raise InvalidInput(f"{name} {first['msg']}".strip()) from error


def kubeconfig_files(explicit: Path | None, current: "Settings") -> tuple[Path, ...]:
    """``--kubeconfig``, TRIPLANE_KUBECONFIG, KUBECONFIG, the local installation's admin, ``~/.kube/config``."""
    if explicit is not None:
        return (explicit,)
    if current.kubeconfig is not None:
        return (current.kubeconfig,)
    if listed := os.environ.get("KUBECONFIG"):
        files = tuple(Path(part) for part in listed.split(os.pathsep) if part and Path(part).exists())
        if not files:
            raise InvalidInput(f"KUBECONFIG names no file that exists: {listed}")
        return files
    local = current.secrets / "kubeconfig-admin"
    home = Path.home() / ".kube" / "config"
    for path in (local, home):
        if path.is_file():
            return (path,)
    raise Unavailable(f"no kubeconfig: neither {local} nor {home} exists; run `triplane up` or name one")


def access(kubeconfig: Path | None, context: str | None) -> "Access":
    """Who the caller is at which API server."""
    from triplane.adapters.kube.kubeconfig import load

    return load(kubeconfig_files(kubeconfig, settings()), context)


@contextmanager
def cluster(kubeconfig: Path | None, context: str | None) -> Iterator["Reader"]:
    """The API server, as the kubeconfig's user."""
    from triplane.adapters.kube.reader import Reader

    with Reader(access(kubeconfig, context)) as reader:
        yield reader


@contextmanager
def gateway(kubeconfig: Path | None, context: str | None, namespace: str | None = None) -> Iterator["Gateway"]:
    """The gateway, as the kubeconfig's user: it wants a bearer token."""
    from triplane.cli.gateway import Gateway

    caller = access(kubeconfig, context)
    if not caller.token:
        raise InvalidInput(
            f"context {caller.context} has no bearer token, which the gateway needs: "
            "use a kubeconfig with a token (`kubectl create token` makes one)"
        )
    with Gateway(gateway_url(settings()), caller.token, namespace or caller.namespace) as opened:
        yield opened


def gateway_url(current: "Settings") -> str:
    """TRIPLANE_GATEWAY_URL, else the running installation's."""
    if current.gateway_url:
        return current.gateway_url.rstrip("/")
    path = current.run / "endpoints.json"
    try:
        endpoint = json.loads(path.read_text(encoding="utf-8"))["gateway"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{path} names no gateway: run `triplane up`, or set TRIPLANE_GATEWAY_URL") from error
    return endpoint.rstrip("/") if isinstance(endpoint, str) else f"http://127.0.0.1:{endpoint}"
