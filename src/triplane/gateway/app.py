"""The gateway: authenticates, validates, appends, stores blobs (docs/reference/gateway-api.md).

It writes no Kubernetes status and keeps nothing that matters in memory: kill it at any instant and start it again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

import structlog
from fastapi import FastAPI, Response

from triplane.adapters.clock import SystemClock
from triplane.adapters.meteredlog import MeteredLog
from triplane.errors import TriplaneError
from triplane.gateway import (
    answers,
    asrun,
    blobs,
    claims,
    history,
    inputs,
    journal,
    keeping,
    keys,
    lineage,
    log,
    policies,
    principals,
    proofs,
    reflections,
    secrets,
    sessions,
    stream,
    tiles,
    tools,
)
from triplane.gateway.answers import error_answer, json_answer
from triplane.gateway.bell import Bell
from triplane.gateway.config import GatewayConfig
from triplane.gateway.keeper import Keeper
from triplane.gateway.metrics import CONTENT_TYPE, GatewayMetrics, MeteredApp, parts_of
from triplane.gateway.people import ApiServerAccount, People
from triplane.gateway.quota import RunQuotas
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.tokens import RunTokens
from triplane.gateway.watchedcontent import WatchedContent
from triplane.ports import Clock
from triplane.wiring import GatewayBackends

_log = structlog.get_logger()
_READY_SECONDS: Final = 5.0


def create_app(
    backends: GatewayBackends,
    config: GatewayConfig,
    clock: Clock | None = None,
    *,
    metrics: GatewayMetrics | None = None,
) -> FastAPI:
    """The app over these backends, which stay their opener's to close. Making it creates the first run-token key
    where there is none. Its ``state.gateway.stopping`` ends streams and long polls."""
    clock = clock or SystemClock()
    metrics = metrics or GatewayMetrics()
    keeper = Keeper(backends, config, clock, metrics)
    metered = MeteredLog(backends.log, metrics.appended)
    metrics.appending(lambda: metered.waiting)
    watched = WatchedContent(backends.content, metered, backends.sessions, metrics)
    account = ApiServerAccount(config.kubeconfig) if config.kubeconfig is not None else None
    gateway = Gateway(
        backends=replace(backends, log=metered, content=watched, closers=()),
        config=config,
        clock=clock,
        tokens=RunTokens(config.keys),
        people=People(account, seconds=config.people_cache_seconds, monotonic=clock.monotonic),
        bell=Bell(backends.sessions),
        metrics=metrics,
        keeper=keeper,
        quotas=RunQuotas(config.run_limit),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        working = [asyncio.create_task(gateway.bell.listen()), asyncio.create_task(keeper.run())]
        try:
            yield
        finally:
            gateway.stopping.set()
            for task in working:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await gateway.workers.close()
            await gateway.people.close()

    app = FastAPI(title="Triplane gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.gateway = gateway
    answers.install(app)
    app.add_api_route("/healthz", _healthz, methods=["GET"])
    app.add_api_route("/readyz", _readyz, methods=["GET"])
    app.add_api_route("/metrics", _metrics, methods=["GET"])
    parts = (
        asrun,
        claims,
        history,
        sessions,
        secrets,
        journal,
        blobs,
        keeping,
        principals,
        log,
        stream,
        tiles,
        proofs,
        keys,
        lineage,
        policies,
        tools,
        inputs,
        reflections,
    )
    for part in parts:
        app.include_router(part.router)
    routes = [*app.routes, *(route for part in parts for route in part.router.routes)]
    app.add_middleware(MeteredApp, metrics=metrics, parts=parts_of(routes))
    return app


async def _healthz() -> Response:
    """The process answers; says nothing of the stores."""
    return json_answer({"alive": True})


async def _metrics(gateway: GatewayDep) -> Response:
    """The text format of Prometheus. Nothing in it is about anybody: no token is asked for."""
    return Response(gateway.metrics.exposition(), media_type=CONTENT_TYPE)


async def _readyz(gateway: GatewayDep) -> Response:
    """The stores can be reached now."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            size, _ = await gateway.backends.log.head()
            await gateway.backends.sessions.revocation_revision()
    except TimeoutError:
        return error_answer(answers.Refusal(503, "Unavailable", "the stores do not answer in time"))
    except TriplaneError as error:
        return error_answer(error)
    return json_answer({"ready": True, "logSize": size})
