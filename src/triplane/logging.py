"""Structured logs: one JSON object a line on standard error, whoever logs.

Third-party loggers (kopf, uvicorn, alembic) go through the same renderer, so that a log collector meets one
format. Control characters are escaped by JSON itself, and DEL by us: a line break in an object's name cannot forge a
line, nor an escape sequence reach a terminal. What a task of the event loop has bound (``structlog.contextvars``) is on
all of its lines: the operator binds kind, namespace, name, uid, generation and trace_id (``domain/trace.py``).
"""

import json
import logging
import sys
from typing import Any

import structlog

_NOISY = {
    "kopf.objects": logging.WARNING,
    "kopf._core.reactor.running": logging.ERROR,
    "kopf.activities.authentication": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
}
"""Loggers that speak of every object or request; their level is raised unless DEBUG is asked for."""


def _printable(event: object, **options: Any) -> str:
    """JSON in printable ASCII."""
    return json.dumps(event, ensure_ascii=True, **options).replace("\x7f", "\\u007f")


def configure_logging(level: str = "INFO") -> None:
    """Send all logging of this process to standard error as JSON lines. Calling it again replaces the set-up.

    ``level`` is a name of the ``logging`` module; an unknown one is a ``ValueError``.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; use DEBUG, INFO, WARNING or ERROR")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_printable, sort_keys=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, quiet in _NOISY.items():
        logging.getLogger(name).setLevel(max(number, quiet) if number > logging.DEBUG else number)
