"""The witness over HTTP (C2SP tlog-witness): ``add-checkpoint``, and the latest checkpoint for monitors.

What is answered is decided in ``triplane.audit.witness``. Here: a request's octets within bounds of size and time, the
record written down before anything is signed, and every answer in the witness's own log.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from triplane.adapters.sqlite.witnessrecord import WitnessRecord
from triplane.audit.checkpoint import add_signatures, parse_checkpoint
from triplane.audit.note import cosign
from triplane.audit.notekey import NoteFault
from triplane.audit.witness import MAX_REQUEST, PLAIN, Accepted, Answer, admit, cosigned, noted
from triplane.errors import TriplaneError
from triplane.witness.folder import Identity, KnownLogs

_log = structlog.get_logger()
BODY_SECONDS: Final = 10.0
MOST_AT_ONCE: Final = 64
"""Requests worked on; more are told to come again. Their bodies take at most 64 MiB."""
MOST_EVIDENCE: Final = 1000
"""Files kept of contradictions: each is signed by a log's own key, so nobody else can make more."""


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness: who it is, whom it knows, what it remembers."""

    identity: Identity
    logs: KnownLogs
    record: WitnessRecord
    evidence: Path
    now: Callable[[], float] = time.time

    def add_checkpoint(self, body: bytes) -> Answer:
        """The answer to a request. Blocking: for a thread. Raises ``Unavailable`` or ``Corrupt`` of the record."""
        logs, problem = self.logs.current()
        if problem is not None:
            _log.error("the change of the list of logs is not taken up", error=problem)
        request = admit(body, logs)
        if isinstance(request, Answer):
            return request
        found = self.record.accept(request)  # durable from here on
        origin = request.checkpoint.origin
        if isinstance(found, Accepted):
            answer = cosigned(found, self.identity.name, [self.identity.signer], self._seconds())
            self.record.cosigned(origin, noted(found), answer.body)
            _log.info("cosigned", origin=origin, size=found.checkpoint.size, root=found.checkpoint.root.hex())
            return answer
        _log.warning("refused", origin=origin, size=request.checkpoint.size, status=found.status, reason=found.reason)
        if found.reason == NoteFault.FORKED.value:
            self._keep(body.partition(b"\n\n")[2])
        return found

    def latest(self, hashed: str) -> bytes | None:
        """The checkpoint last cosigned for the log whose origin has this hash. Where the process ended before it had
        signed what it wrote down, it is signed now."""
        found = self.record.latest(hashed)
        if found is None:
            return None
        lines = found.cosignatures
        if lines is None:
            text = parse_checkpoint(found.note)[0].text
            lines = cosign(text, self.identity.name, self.identity.signer, self._seconds()).line
            self.record.cosigned(found.origin, found.note, lines)
        return add_signatures(found.note, lines.splitlines(keepends=True))

    def _seconds(self) -> int:
        return max(1, int(self.now()))

    def _keep(self, note: bytes) -> None:
        """A signed contradiction proves, with what this witness cosigned, that the log has told two stories."""
        path = self.evidence / f"{hashlib.sha256(note).hexdigest()}.note"
        try:
            self.evidence.mkdir(mode=0o700, exist_ok=True)
            if path.exists() or sum(1 for _ in self.evidence.iterdir()) >= MOST_EVIDENCE:
                return
            scratch = self.evidence / f".{token_hex(8)}"
            scratch.write_bytes(note)
            scratch.replace(path)
        except OSError as error:
            _log.error("the evidence of a fork cannot be kept", error=str(error), note=note.decode(errors="replace"))
        else:
            _log.error("a log is forked: keep the evidence, tell who relies on it", evidence=path.name)


def create_app(witness: Witness) -> Starlette:
    """``POST /add-checkpoint``, ``GET /<origin hash>/checkpoint``, ``GET /healthz``."""
    places = asyncio.Semaphore(MOST_AT_ONCE)

    async def add_checkpoint(request: Request) -> Response:
        if places.locked():
            return _refused(503, "too many requests at once: come again")
        async with places:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _body(request)
            except TimeoutError:
                return _refused(408, f"the request did not come within {BODY_SECONDS:.0f} seconds")
            answer = await asyncio.to_thread(witness.add_checkpoint, body)
        # As a header: Starlette would add a charset to the type of a size.
        return Response(answer.body, answer.status, {"Content-Type": answer.content_type})

    async def checkpoint(request: Request) -> Response:
        found = await asyncio.to_thread(witness.latest, request.path_params["hashed"])
        if found is None:
            return _refused(404, "no checkpoint of a log with this hash of its origin was cosigned here")
        return Response(found, media_type=PLAIN, headers={"Cache-Control": "no-cache"})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def failed(request: Request, error: Exception) -> Response:
        _log.error("a request failed", path=request.url.path, error=str(error))
        return _refused(503, "the witness cannot write its record now; nothing was cosigned, come again")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refused(error.status_code, str(error.detail), error.headers)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{hashed}/checkpoint", checkpoint, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
        ],
        exception_handlers={TriplaneError: failed, HTTPException: refused},
    )


async def _body(request: Request) -> bytes:
    """At most one octet over the limit: `admit` refuses it then."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk[: MAX_REQUEST + 1 - len(body)]
            if len(body) > MAX_REQUEST:
                break
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was cut off") from error
    return bytes(body)


def _refused(status: int, message: str, headers: object = None) -> Response:
    more = {"Retry-After": "1"} if status == 503 else dict(headers) if isinstance(headers, dict) else None
    return Response(f"{message}\n", status, more, media_type=PLAIN)
