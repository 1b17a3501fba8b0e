"""Serve a witness until SIGTERM: JSON lines on standard error, the URL on standard output once it listens.

It needs its folder and nothing else of Triplane: no database, no cluster.
"""

import socket
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from triplane.adapters.sqlite.witnessrecord import WitnessRecord
from triplane.errors import InvalidInput, Unavailable
from triplane.httpserver import Server
from triplane.witness.app import Witness, create_app
from triplane.witness.folder import KnownLogs, identity

_log = structlog.get_logger()
_GRACE_SECONDS: Final = 5


def open_witness(folder: Path) -> Witness:
    """The witness of a folder. Raises ``InvalidInput`` saying what is missing."""
    return Witness(identity(folder), KnownLogs(folder), WitnessRecord(folder), folder / "evidence")


async def serve(folder: Path, host: str, port: int) -> None:
    """Serve until told to stop. Port 0 takes a free one. Raises ``InvalidInput``, ``Unavailable``."""
    witness = open_witness(folder)
    listener = _bound(host, port)
    try:
        bound = listener.getsockname()[1]
        url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"

        def announced() -> None:
            print(url, flush=True)
            logs, _ = witness.logs.current()
            _log.info("the witness serves", url=url, key=str(witness.identity.key), logs=sorted(logs))

        config = uvicorn.Config(
            create_app(witness),
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            access_log=False,
            server_header=False,
            limit_concurrency=512,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        await Server(config, announced).serve(sockets=[listener])
    finally:
        listener.close()
    _log.info("the witness has stopped")


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[v6]:PORT``. Raises ``InvalidInput``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InvalidInput(f"{text!r} is no address to listen on: write HOST:PORT, as in 127.0.0.1:7380")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Named, or asyncio does not take it for TCP and leaves Nagle on: up to 40 ms an answer.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise InvalidInput(f"{host} is no address of this machine: {error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise Unavailable(f"the witness cannot listen on {host}:{port} ({error.strerror}); free it") from error
    return made
