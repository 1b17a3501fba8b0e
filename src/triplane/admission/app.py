"""The webhook's HTTP side: two endpoints the API server calls, health and metrics."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from triplane.adapters.cel.expressions import CelExpressions
from triplane.adapters.clock import SystemClock
from triplane.adapters.kube.lookup import Lookup
from triplane.admission.checks import Checks
from triplane.admission.review import clock_response, graph_response, request_of
from triplane.errors import InvalidInput

MAX_REVIEW = 8 * 2**20
"""Octets of one AdmissionReview: an object and its predecessor, at most 3 MiB each at the API server."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RESOURCES = ("tasks", "nodes", "workflows")
_OPERATIONS = ("CREATE", "UPDATE")
_log = structlog.get_logger()


def create_app(lookup: Lookup, expressions: CelExpressions) -> Starlette:
    """The app over these; it closes them when it ends."""
    checks = Checks(lookup, expressions)
    clock = SystemClock()
    registry = CollectorRegistry()
    seconds = Histogram(
        "triplane_admission_seconds",
        "Time to answer an AdmissionReview.",
        ("resource", "operation", "answer"),
        buckets=_BUCKETS,
        registry=registry,
    )

    async def graph(request: Request) -> Response:
        began = time.perf_counter()
        try:
            asked = request_of(orjson.loads(await _body(request)))
        except (orjson.JSONDecodeError, InvalidInput) as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        answer = await graph_response(checks, asked)
        response = answer["response"]
        code = response.get("status", {}).get("code")
        said = "allowed" if response["allowed"] else "refused" if code == 422 else "unavailable"
        resource = _one_of(_RESOURCES, (asked.get("resource") or {}).get("resource"))
        operation = _one_of(_OPERATIONS, asked.get("operation"))
        seconds.labels(resource, operation, said).observe(time.perf_counter() - began)
        if said == "unavailable":
            _log.warning("cannot tell", resource=resource, error=response["status"]["message"])
        return Response(orjson.dumps(answer), media_type="application/json")

    async def clocked(request: Request) -> Response:
        try:
            asked = request_of(orjson.loads(await _body(request)))
        except (orjson.JSONDecodeError, InvalidInput) as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(orjson.dumps(clock_response(clock, asked)), media_type="application/json")

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await expressions.close()
            await lookup.close()

    return Starlette(
        routes=[
            Route("/graph", graph, methods=["POST"]),
            Route("/clock", clocked, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", healthz),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


def _one_of(known: tuple[str, ...], said: object) -> str:
    """A label value from a fixed set: whoever calls must not make series at will."""
    return str(said) if said in known else "other"


async def _body(request: Request) -> bytes:
    octets = bytearray()
    async for chunk in request.stream():
        octets += chunk
        if len(octets) > MAX_REVIEW:
            raise InvalidInput(f"the body is larger than {MAX_REVIEW} octets; no AdmissionReview is")
    return bytes(octets)
