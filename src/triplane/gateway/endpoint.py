"""Where the gateway listens, and how others find it: loopback only, the URL in ``run/endpoints.json``."""

import fcntl
import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import orjson

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
    earlier = _read(settings.run / "endpoints.json").get(NAME)
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


def announce(folder: Path, url: str) -> None:
    """Write ``gateway`` into ``endpoints.json``; other members stay. Readers see the old file or the new one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "endpoints.json"
    with (folder / "endpoints.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = folder / f".endpoints.{os.getpid()}"
        scratch.write_bytes(orjson.dumps({**_read(path), NAME: url}, option=orjson.OPT_SORT_KEYS))
        scratch.chmod(0o600)
        scratch.replace(path)


def _read(path: Path) -> dict[str, object]:
    try:
        found = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    made.set_inheritable(False)
    return made
