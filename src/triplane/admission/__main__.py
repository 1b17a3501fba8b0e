"""``python -m triplane.admission``: serve admission reviews over TLS until SIGTERM, with JSON logs on standard error.

It holds no state and no lock: run as many as you like. A renewed certificate is taken up without a restart.
"""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from triplane import endpoints, processmemory
from triplane.admission.app import create_app
from triplane.admission.certificate import take_up_renewed
from triplane.admission.endpoint import NAME, listening_socket, own_name, own_socket, url_of
from triplane.admission.layers import layers_of
from triplane.errors import InvalidInput, TriplaneError
from triplane.httpserver import Server
from triplane.logging import configure_logging
from triplane.settings import Settings

_log = structlog.get_logger()
_GRACE_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 120
"""Longer than the API server keeps an idle connection (90 s): the asker closes it, so no request meets a closed one."""

_LINGER_SECONDS: Final = 1.0
"""In which the API server's open connections are used up; it does not repeat a review that met a closed one."""


def main() -> int:
    """Run until told to stop; 0 after a clean stop, 2 for settings that cannot work."""
    try:
        settings = Settings()
        configure_logging(settings.log_level)
    except ValueError as error:
        print(f"triplane admission: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(settings))
    except InvalidInput as error:
        _log.error("the admission webhook cannot start", error=str(error))
        return 2
    except TriplaneError as error:
        _log.error("the admission webhook cannot go on", error=str(error))
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Listen, announce the URL, answer."""
    certificate, key = settings.admission_certificate, settings.admission_key
    if certificate is None or key is None:
        raise InvalidInput("set TRIPLANE_ADMISSION_CERTIFICATE and TRIPLANE_ADMISSION_KEY: webhooks are called by TLS")
    app = create_app(layers_of(settings), _caller(settings.admission_caller))
    with listening_socket(settings) as listener, own_socket(settings) as own:

        def announced() -> None:
            processmemory.settle()  # the longest pauses came from looks at what stays for good
            endpoints.announce(settings.run, NAME, url_of(listener))
            endpoints.announce(settings.run, own_name(settings.admission_replica), url_of(own))
            _log.info("the admission webhook serves", url=url_of(listener), replica=settings.admission_replica)

        config = uvicorn.Config(
            app,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"the certificate {certificate} or its key {key} cannot be used: {error}") from error
        assert isinstance(config.ssl, ssl.SSLContext)
        renewing = asyncio.create_task(take_up_renewed(config.ssl, certificate, key))
        try:
            await Server(config, announced, linger=_LINGER_SECONDS).serve(sockets=[listener, own])
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
    _log.info("the admission webhook has stopped")


def _caller(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text().strip()
    except OSError as error:
        raise InvalidInput(f"the API server's token {path} cannot be read: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
