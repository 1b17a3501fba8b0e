"""``python -m triplane.gateway``: serve on loopback until SIGTERM, with JSON logs on standard error.

Postgres may be absent at the start: the process waits for it. It exits within seconds even with open streams, for
they watch the stop sign.
"""

import asyncio
import itertools
import socket
import sys
from datetime import timedelta
from typing import Final

import structlog
import uvicorn

from triplane import endpoints, processmemory
from triplane.domain.collection import Rules
from triplane.errors import InvalidInput, TriplaneError, Unavailable
from triplane.gateway.app import create_app
from triplane.gateway.config import GatewayConfig
from triplane.gateway.endpoint import NAME, listening_socket
from triplane.gateway.metrics import GatewayMetrics
from triplane.httpserver import Server
from triplane.logging import configure_logging
from triplane.settings import Settings
from triplane.wiring import GatewayBackends, open_gateway

_log = structlog.get_logger()
_GRACE_SECONDS: Final = 3
_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


def main() -> int:
    """Run until told to stop; 0 after a clean stop, 2 for settings that cannot work."""
    try:
        settings = Settings()
        configure_logging(settings.log_level)
    except ValueError as error:
        print(f"triplane gateway: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(serve(settings))
    except InvalidInput as error:
        _log.error("the gateway cannot start", error=str(error))
        return 2
    except TriplaneError as error:
        _log.error("the gateway cannot go on", error=str(error))
        return 1


async def serve(settings: Settings) -> int:
    """Open the backends, listen, announce the URL, serve."""
    metrics = GatewayMetrics()
    backends = await _opened(settings, metrics)
    try:
        with listening_socket(settings) as listener:
            await _serve_on(listener, backends, settings, metrics)
    finally:
        await backends.close()
    return 0


async def _serve_on(
    listener: socket.socket, backends: GatewayBackends, settings: Settings, metrics: GatewayMetrics
) -> None:
    app = create_app(
        backends,
        GatewayConfig(
            keys=settings.secrets / "gateway_keys",
            kubeconfig=settings.kubeconfig,
            lease_seconds=settings.lease_seconds,
            blob_limit=settings.blob_octets,
            run_limit=settings.run_octets,
            collection=Rules(grace=timedelta(seconds=settings.collect_grace_seconds)),
            collect_seconds=settings.collect_seconds,
            scrub_seconds=settings.scrub_seconds,
            scrub_octets_per_second=settings.scrub_octets_per_second,
        ),
        metrics=metrics,
    )
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def announced() -> None:
        processmemory.settle()
        endpoints.announce(settings.run, NAME, url)
        _log.info("the gateway serves", url=url, origin=backends.log.origin)

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=75,
    )
    await Server(config, announced, app.state.gateway.stopping.set).serve(sockets=[listener])
    _log.info("the gateway has stopped")


async def _opened(settings: Settings, metrics: GatewayMetrics) -> GatewayBackends:
    """The backends, as soon as Postgres can be reached and has the right schema; then earlier gateways are fenced."""
    for attempt in itertools.count():
        try:
            backends = await open_gateway(settings, quarantined=metrics.quarantined)
        except Unavailable as error:
            _log.warning("waiting for the stores", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
        else:
            return backends
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main())
