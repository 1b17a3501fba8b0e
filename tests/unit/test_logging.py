"""One JSON object a line, whatever is logged; lines of one piece of work carry what it is about."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from triplane.logging import configure_logging
from triplane.operator.queue import Backoff, WorkQueue


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("INFO")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n") if line]


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        'a forged\n{"event": "all is well"}',
        "red \x1b[31m text \x1b]0;title\x07",
        "delete \x7f and C1 \x9b31m",
        "bidi \u202e and zero\u200bwidth",
        "carriage\rreturn",
        "line\u2028separator",
    ],
    ids=["line break", "forged line", "ANSI sequence", "DEL and CSI", "bidi", "carriage return", "line separator"],
)
@pytest.mark.parametrize("library", ["structlog", "logging"])
def test_control_characters_reach_no_terminal_and_forge_no_line(lines: io.StringIO, text: str, library: str) -> None:
    if library == "structlog":
        structlog.get_logger("test").info("seen", name=text)
    else:
        logging.getLogger("test").warning("seen %s", text)
    written = lines.getvalue()
    assert written.count("\n") == 1
    assert all(" " <= character <= "~" for character in written.rstrip("\n"))
    (line,) = read(lines)
    assert text in (line.get("name"), line["event"].removeprefix("seen "))


async def test_every_line_of_a_reconcile_says_what_it_is_about(lines: io.StringIO) -> None:
    about = {"kind": "Task", "namespace": "team", "name": "t", "uid": "u-1", "generation": 2, "trace_id": "ab" * 16}
    library = logging.getLogger("a.library")

    async def work(key: str) -> None:
        structlog.get_logger("test").info("ours")
        library.warning("theirs")
        raise ValueError("a bug")

    queue: WorkQueue[str] = WorkQueue(work, workers=1, backoff=Backoff(base=60), describe=lambda key: about)
    running = asyncio.create_task(queue.run())
    queue.add("k")
    async with asyncio.timeout(5):
        while not queue.counters.failed:
            await asyncio.sleep(0.005)
    structlog.get_logger("test").info("elsewhere")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    told = {line["event"]: line for line in read(lines)}
    for event in ("ours", "theirs", "work failed unexpectedly", "work will be retried"):
        assert {name: told[event].get(name) for name in about} == about, event
    assert "trace_id" not in told["elsewhere"]
