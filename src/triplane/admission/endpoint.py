"""Where the webhook listens, and how the webhook configuration finds it: the URL in ``run/endpoints.json``."""

import socket
from typing import Final
from urllib.parse import urlsplit

from triplane import endpoints
from triplane.errors import Unavailable
from triplane.settings import Settings

NAME: Final = "admission"


def listening_socket(settings: Settings) -> socket.socket:
    """A bound socket on ``admission_host``: ``admission_port``, or without one the port used before, which the API
    server knows, if it is free, else any.

    Raises ``Unavailable`` when the port that was asked for is taken.
    """
    if settings.admission_port:
        try:
            return _bound(settings.admission_host, settings.admission_port)
        except OSError as error:
            where = f"{settings.admission_host}:{settings.admission_port}"
            raise Unavailable(f"the webhook cannot listen on {where} ({error.strerror}); free it") from error
    earlier = endpoints.read(settings.run).get(NAME)
    if isinstance(earlier, str):
        try:
            return _bound(settings.admission_host, urlsplit(earlier).port or 0)
        except (OSError, ValueError):
            pass
    return _bound(settings.admission_host, 0)


def url_of(listener: socket.socket) -> str:
    """``https://<address>:<port>`` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.set_inheritable(False)
    return made
