"""Where the webhook listens, and how the webhook configuration finds it: the URL in ``run/endpoints.json``.

The API server knows one URL. Replicas on one machine share its port (SO_REUSEPORT, socket(7)): the kernel deals new
connections out among those that live. Each has an address of its own beside it, for probes and metrics.
"""

import socket
from typing import Final
from urllib.parse import urlsplit

from triplane import endpoints
from triplane.errors import Unavailable
from triplane.settings import Settings

NAME: Final = "admission"


def own_name(replica: int) -> str:
    """Under which a replica's own address stands in ``run/endpoints.json``."""
    return f"{NAME}-{replica}"


def listening_socket(settings: Settings) -> socket.socket:
    """A bound socket on ``admission_host``: ``admission_port``, or without one the port used before, which the API
    server knows, if it is free (or shared with other replicas), else any.

    Raises ``Unavailable`` when the port that was asked for is taken.
    """
    host, shared = settings.admission_host, settings.admission_replicas > 1
    if settings.admission_port:
        try:
            return _bound(host, settings.admission_port, shared)
        except OSError as error:
            where = f"{host}:{settings.admission_port}"
            raise Unavailable(f"the webhook cannot listen on {where} ({error.strerror}); free it") from error
    earlier = endpoints.read(settings.run).get(NAME)
    if isinstance(earlier, str):
        try:
            return _bound(host, urlsplit(earlier).port or 0, shared)
        except (OSError, ValueError):
            pass
    return _bound(host, 0, shared)


def own_socket(settings: Settings) -> socket.socket:
    """A bound socket of this replica alone, on any port."""
    return _bound(settings.admission_host, 0, False)


def url_of(listener: socket.socket) -> str:
    """``https://<address>:<port>`` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    # Named, or asyncio does not take it for TCP and leaves Nagle on: 40 ms an answer.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.set_inheritable(False)
    return made
