"""Liveness, readiness and metrics over HTTP on loopback: an answer at all shows that the event loop turns. A blocked
loop answers nothing, which every prober counts as a failure after its own time-out.

``/healthz`` fails when a restart of this process is the remedy: the watching thread is silent, or the watches
stay stuck after being begun again. ``/readyz`` also fails while the database or the API server is away, which
a restart would not mend.
"""

import asyncio
import contextlib
from collections.abc import Callable

from triplane.operator.metrics import CONTENT_TYPE
from triplane.operator.shell import STUCK_RESTARTS, Shell
from triplane.ports import Clock

SILENCE_SECONDS = 30.0
STORES_SECONDS = 10.0
SWEEP_LATE_SECONDS = 120.0
READ_SECONDS = 5.0


def unhealthy(shell: Shell) -> list[str]:
    """Why a restart of the process is called for; empty when it is not."""
    problems = []
    if shell.sweep.completed_at is not None and shell.watcher.started:
        silence = shell.watcher.silence()
        if shell.watcher.dead:
            problems.append("the watching thread has ended")
        elif silence > SILENCE_SECONDS:
            problems.append(f"the watching thread has been silent for {silence:.0f} s")
        if shell.stuck >= STUCK_RESTARTS:
            problems.append(f"the watches stayed stuck after {shell.stuck} restarts")
    return problems


def unready(shell: Shell, clock: Clock) -> list[str]:
    """Why no work can be done now; empty when it can."""
    now = clock.monotonic()
    problems = unhealthy(shell)
    if 0 < shell.stuck < STUCK_RESTARTS:
        problems.append("a watch was stuck, and its restart has not proved to help yet")
    if shell.stores_seen_at is None or now - shell.stores_seen_at > STORES_SECONDS:
        problems.append("the database does not answer")
    if shell.sweep.completed_at is None:
        problems.append("the API server has not been read yet")
    elif shell.sweep.problem:
        problems.append(f"the API server could not be read: {shell.sweep.problem}")
    elif now - shell.sweep.completed_at > SWEEP_LATE_SECONDS:
        problems.append("the API server has not been read for too long")
    return problems


class HealthServer:
    """Answers GET /healthz and /readyz with 200 ``ok`` or 503 and the reasons, one a line; GET /metrics with the
    text format of Prometheus."""

    def __init__(self, shell: Shell, clock: Clock) -> None:
        self._checks: dict[str, Callable[[], list[str]]] = {
            "/healthz": lambda: unhealthy(shell),
            "/livez": lambda: unhealthy(shell),
            "/readyz": lambda: unready(shell, clock),
        }
        self._metrics = shell.metrics
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on a free loopback port and return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=8192)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(READ_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request))
                await writer.drain()
        writer.close()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        path = rest.split(" ")[0].split("?")[0]
        if method == "GET" and path == "/metrics":
            return _response("200 OK", self._metrics.exposition(), CONTENT_TYPE)
        check = self._checks.get(path)
        if method != "GET" or check is None:
            return _response("404 Not Found", "not found\n")
        problems = check()
        if problems:
            return _response("503 Service Unavailable", "".join(f"{problem}\n" for problem in problems))
        return _response("200 OK", "ok\n")


def _response(status: str, text: str | bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode() if isinstance(text, str) else text
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
