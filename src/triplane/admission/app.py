"""The webhook's HTTP side: two endpoints the API server calls, health and metrics."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final, Protocol

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from triplane.adapters.clock import SystemClock
from triplane.admission.asked import Check, Reads
from triplane.admission.review import answer_to, asked_of, clock_response, probe_response, request_of
from triplane.api.kinds import KINDS
from triplane.api.policy import Operation, PolicyKind
from triplane.errors import InvalidInput

MAX_REVIEW: Final = 8 * 2**20
"""Octets of one AdmissionReview: an object and its predecessor, at most 3 MiB each at the API server."""
START_SECONDS: Final = 10.0
"""How long a process that is not ready yet keeps off the port it shares."""
PROBE: Final = "triplane-webhook-probe"
"""Name of the object by which an installer asks whether its configuration is in force; it is never stored."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RESOURCES: Final = frozenset(KINDS[kind].info.plural for kind in (*PolicyKind, "Policy"))
_OPERATIONS: Final = frozenset(Operation)
_log = structlog.get_logger()


class Part(Protocol):
    """What works beside the answers, such as a watch."""

    async def start(self) -> None:
        """Begin; returns at once."""
        ...

    def missing(self) -> str | None:
        """What it still waits for; None when requests can be answered."""
        ...

    async def close(self) -> None:
        """End, and wait for it."""
        ...


@dataclass(frozen=True, slots=True)
class Layers:
    """What judges requests, and what that needs."""

    checks: Sequence[Check]
    reads: Reads
    parts: Sequence[Part] = ()
    """Started in this order, closed in the reverse one."""


class Measured:
    """``triplane_admission_seconds`` and the registry it is in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "triplane_admission_seconds",
            "Time to answer an AdmissionReview.",
            ("resource", "operation", "answer"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def observe(self, request: dict[str, Any], said: str, seconds: float) -> None:
        """One answer. Label values are of fixed sets: whoever calls must not make series at will."""
        resource = (request.get("resource") or {}).get("resource")
        operation = request.get("operation")
        self._seconds.labels(
            resource if resource in _RESOURCES else "other", operation if operation in _OPERATIONS else "other", said
        ).observe(seconds)


def create_app(layers: Layers, caller: str | None = None) -> Starlette:
    """The app over these; it starts and closes their parts. ``caller``: the token the API server must show; None:
    whoever reaches the port is answered."""
    shown = None if caller is None else f"Bearer {caller}".encode()
    clock = SystemClock()
    measured = Measured()

    async def review(request: Request) -> Response:
        began = time.perf_counter()
        if shown is not None and not compare_digest(request.headers.get("authorization", "").encode(), shown):
            return PlainTextResponse("only the API server is answered here\n", status_code=401)
        asked = request_of(orjson.loads(await _body(request)))
        if asked.get("name") == PROBE and asked.get("dryRun") is True:
            return _json(probe_response(asked, request.path_params["mark"]))
        answer = await answer_to(asked_of(asked), layers.checks, layers.reads)
        response = answer["response"]
        code = response.get("status", {}).get("code")
        said = "allowed" if response["allowed"] else "unavailable" if code == 503 else "refused"
        measured.observe(dict(asked), said, time.perf_counter() - began)
        if said == "unavailable":
            _log.warning("cannot tell", error=response["status"]["message"])
        return _json(answer)

    async def clocked(request: Request) -> Response:
        return _json(clock_response(clock, request_of(orjson.loads(await _body(request)))))

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        missing = [said for part in layers.parts if (said := part.missing()) is not None]
        return PlainTextResponse("; ".join(missing) + "\n", status_code=503) if missing else PlainTextResponse("ok\n")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(measured.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def unusable(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error}\n", status_code=400)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        started: list[Part] = []
        try:
            for part in layers.parts:
                started.append(part)
                await part.start()
            await _ready(layers.parts)
            yield
        finally:
            for part in reversed(started):
                await part.close()

    return Starlette(
        routes=[
            Route("/review/{mark}", review, methods=["POST"]),
            Route("/clock", clocked, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={orjson.JSONDecodeError: unusable, InvalidInput: unusable},
        lifespan=lifespan,
    )


async def _ready(parts: Sequence[Part]) -> None:
    """Another replica that is ready answers meanwhile; after a while this one says itself what it cannot tell."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while any(part.missing() for part in parts):  # noqa: ASYNC110  # a part tells only when asked
                await asyncio.sleep(0.02)


def _json(answer: dict[str, Any]) -> Response:
    return Response(orjson.dumps(answer), media_type="application/json")


async def _body(request: Request) -> bytes:
    octets = bytearray()
    async for chunk in request.stream():
        octets += chunk
        if len(octets) > MAX_REVIEW:
            raise InvalidInput(f"the body is larger than {MAX_REVIEW} octets; no AdmissionReview is")
    return bytes(octets)
