"""Prepared statements over psycopg's own libpq, without what a cursor costs.

An append is the one statement whose fixed cost shows: a cursor, its adapters and the polling of psycopg's
``wait_async`` take longer than the server does. Connecting, errors and every other statement stay psycopg's.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

_BINARY = int(pq.Format.BINARY)
_GOOD = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC})


async def prepare(connection: psycopg.AsyncConnection[Any], name: bytes, statement: bytes) -> None:
    """Prepare a statement under this name. Raises psycopg's errors."""
    connection.pgconn.send_prepare(name, statement)
    await _sent(connection.pgconn)
    await _result(connection.pgconn)


async def execute_prepared(
    connection: psycopg.AsyncConnection[Any],
    name: bytes,
    values: Sequence[bytes],
    sent: Callable[[], None],
    *,
    then_commit: bool = False,
) -> bytes | None:
    """Run a prepared statement on values in binary form; the one value it answers, in binary form, None for NULL.

    ``sent`` is called when the server has it all. ``then_commit`` sends COMMIT along, in one round trip: when this
    returns, both are done. Raises psycopg's errors. The connection must be given up when it raises, or is cancelled.
    """
    pgconn = connection.pgconn
    if then_commit:
        pgconn.enter_pipeline_mode()
    pgconn.send_query_prepared(name, values, [_BINARY] * len(values), _BINARY)
    if then_commit:
        pgconn.send_query_params(b"COMMIT", None)
        pgconn.pipeline_sync()
    await _sent(pgconn)
    sent()
    answer = await _result(pgconn)
    if then_commit:
        await _result(pgconn)
        await _result(pgconn, last=True)
        pgconn.exit_pipeline_mode()
    value: bytes | None = answer.get_value(0, 0)
    return value


async def _sent(pgconn: Any) -> None:
    while pgconn.flush():
        await _ready(pgconn.socket, writing=True)
        pgconn.consume_input()  # a server that is not read from may stop reading, too


async def _result(pgconn: Any, *, last: bool = False) -> Any:
    """The next statement's result, up to the None that ends its results (a pipeline's sync has none).

    A statement that commits by itself answers first and commits afterwards: an error behind a good result is one.
    """
    found = await _next(pgconn)
    if found is None:
        raise psycopg.OperationalError("the server answered nothing")
    failed = None if found.status in _GOOD else found
    while not last and (more := await _next(pgconn)) is not None:
        if failed is None and more.status not in _GOOD:
            failed = more
    if failed is not None:
        raise error_from_result(failed)
    return found


async def _next(pgconn: Any) -> Any:
    while pgconn.is_busy():
        await _ready(pgconn.socket)
        pgconn.consume_input()
    return pgconn.get_result()


async def _ready(socket: int, *, writing: bool = False) -> None:
    """Until there is something to read; or, where something is to be written, room for it."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(socket, _wake, ready)
    if writing:
        loop.add_writer(socket, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(socket)
        if writing:
            loop.remove_writer(socket)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
