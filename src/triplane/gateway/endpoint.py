"""Where the gateway listens, and how others find it: loopback only, the URL in ``run/endpoints.json``."""

import ipaddress
import socket
from urllib.parse import urlsplit

from triplane import endpoints
from triplane.errors import InvalidInput, Unavailable
from triplane.settings import Settings

NAME = "gateway"


def listening_socket(settings: Settings) -> socket.socket:
    """A bound socket on loopback: the port of ``gateway_url`` or ``gateway_port``, else the one used before if it is
    free, else a free one.

    Raises ``InvalidInput`` for any other address: plain HTTP does not leave the machine. ``Unavailable`` when a
    port that was asked for is taken.
    """
    host, port = "127.0.0.1", settings.gateway_port
    if settings.gateway_url is not None:
        host, port = loopback_address(settings.gateway_url)
    if port:
        try:
            return _bound(host, port)
        except OSError as error:
            raise Unavailable(f"the gateway cannot listen on {host}:{port} ({error.strerror}); free it") from error
    earlier = endpoints.read(settings.run).get(NAME)
    if isinstance(earlier, str):
        try:
            return _bound(*loopback_address(earlier))
        except (OSError, InvalidInput):
            pass
    return _bound(host, 0)


def loopback_address(url: str) -> tuple[str, int]:
    """Host and port of an ``http://`` URL on loopback; ``InvalidInput`` for anything else."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
        port = parts.port or 0
    except ValueError:
        loopback, port = False, 0
    if parts.scheme != "http" or not loopback:
        raise InvalidInput(
            f"the gateway speaks plain HTTP on loopback only, not {url!r}; put TLS in front of it for other machines"
        )
    return host, port


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio does not take it for TCP and leaves Nagle on: up to 40 ms an answer.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.set_inheritable(False)
    return made
