"""Errors as answers: one table from the error tree to status, reason and extra members."""

from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from triplane import errors
from triplane.domain.journal import escape_text
from triplane.domain.redaction import redact_text

_log = structlog.get_logger()

_STATUS: tuple[tuple[type[errors.TriplaneError], int], ...] = (
    (errors.InvalidInput, 422),
    (errors.Conflict, 409),
    (errors.BlobErased, 410),
    (errors.Archived, 410),
    (errors.BlobQuarantined, 409),
    (errors.BlobLost, 409),
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.Forbidden, 403),
    (errors.Fenced, 503),
    (errors.Unavailable, 503),
    (errors.Corrupt, 500),
)
_HTTP_REASONS = {404: "NotFound", 405: "MethodNotAllowed"}


class Refusal(errors.TriplaneError):
    """An answer with a status and reason of its own, where the error tree has no class for it."""

    def __init__(self, status: int, reason: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.extra: Mapping[str, Any] = extra


def malformed(message: str) -> Refusal:
    """400: not even the form is right."""
    return Refusal(400, "Malformed", message)


def unauthorized(message: str) -> Refusal:
    """401: no token, or none that we know."""
    return Refusal(401, "Unauthorized", message)


def run_ended(message: str) -> Refusal:
    """409: the run of this token is over."""
    return Refusal(409, "RunEnded", message)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def error_answer(error: errors.TriplaneError) -> Response:
    """The documented form of an error."""
    if isinstance(error, Refusal):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return _answer(error.status, error.reason, str(error), error.extra, headers)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    extra = (
        {"expected": error.expected}
        if isinstance(error, errors.SequenceGap)
        else {"upto": error.upto}
        if isinstance(error, errors.Archived)
        else {}
    )
    headers = {"Retry-After": "1"} if status == 503 else None
    return _answer(status, type(error).__name__, str(error), extra, headers)


def install(app: FastAPI) -> None:
    """Answer every error of the app in the documented form."""

    @app.exception_handler(errors.TriplaneError)
    async def triplane_error(request: Request, error: errors.TriplaneError) -> Response:
        if isinstance(error, errors.Unavailable | errors.Corrupt | errors.Fenced):
            _log.warning("request failed", path=request.url.path, error=str(error))
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def bad_parameters(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return error_answer(malformed(f"{place}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        reason = _HTTP_REASONS.get(error.status_code, "Malformed")
        return _answer(error.status_code, reason, str(error.detail), {}, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        _log.error("unexpected error", path=request.url.path, exc_info=error)
        return _answer(500, "Internal", "the gateway met an error of its own; its log says more", {}, None)


def _answer(
    status: int,
    reason: str,
    message: str,
    extra: Mapping[str, Any],
    headers: Mapping[str, str] | None,
) -> Response:
    """Messages may quote what the caller sent: they are cleaned like anything else that is shown."""
    shown = escape_text(redact_text(message), lines=True)
    return json_answer({"error": {**extra, "reason": reason, "message": shown}}, status, headers)
