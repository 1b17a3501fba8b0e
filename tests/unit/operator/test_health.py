"""Probes over a real socket: fail when the loop is blocked, a watch is stuck or the watching thread is dead."""

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.operator.health import HealthServer
from triplane.operator.shell import STUCK_RESTARTS, Shell, Stores


class Process:
    """An event loop in a thread of its own, with a shell that has started and its health server."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        clock, nothing = SystemClock(), None
        self.shell = Shell(
            nothing,  # type: ignore[arg-type]
            Stores(MemoryEventLog(), MemorySessionStore(clock)),
            clock,
            kubeconfig=None,
            namespace=None,
            lease_seconds=15,
        )
        self.shell.sweep.completed_at = self.shell.stores_seen_at = clock.monotonic()
        self._server = HealthServer(self.shell, clock)
        self.port: int = self.do(self._server.start())

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(5)

    def block(self, seconds: float) -> None:
        """Nothing else runs in the loop for so long."""
        self.loop.call_soon_threadsafe(time.sleep, seconds)
        time.sleep(0.05)

    def probe(self, path: str, timeout: float = 1.0) -> tuple[int, str]:
        """As a kubelet does it: GET with a time-out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def close(self) -> None:
        self.do(self._server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def process() -> Iterator[Process]:
    running = Process()
    yield running
    running.close()


def watching(process: Process, thread: threading.Thread) -> None:
    """The shell's watcher has been started, with this thread."""
    process.shell.watcher._thread = thread
    process.shell.watcher._beat = SystemClock().monotonic()


@pytest.fixture
def alive() -> Iterator[threading.Thread]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_a_probe_fails_while_the_event_loop_is_blocked_and_succeeds_afterwards(process: Process, path: str) -> None:
    assert process.probe(path) == (200, "ok\n")
    process.block(1.0)
    with pytest.raises(TimeoutError):
        process.probe(path, timeout=0.3)
    assert process.probe(path, timeout=5) == (200, "ok\n")


def test_a_watching_thread_that_has_ended_is_told_at_once(process: Process, alive: threading.Thread) -> None:
    watching(process, alive)
    assert process.probe("/healthz") == (200, "ok\n")
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join()
    watching(process, dead)
    assert process.probe("/healthz") == (503, "the watching thread has ended\n")
    assert process.probe("/readyz") == (503, "the watching thread has ended\n")


def test_a_watching_thread_that_shows_no_life_is_told(process: Process, alive: threading.Thread) -> None:
    watching(process, alive)
    process.shell.watcher._beat -= 31
    status, text = process.probe("/healthz")
    assert (status, text) == (503, "the watching thread has been silent for 31 s\n")


def test_a_stuck_watch_makes_not_ready_at_once_and_unhealthy_when_restarts_do_not_help(
    process: Process, alive: threading.Thread
) -> None:
    watching(process, alive)
    process.shell.stuck = 1
    assert process.probe("/healthz") == (200, "ok\n")
    assert process.probe("/readyz") == (503, "a watch was stuck, and its restart has not proved to help yet\n")
    process.shell.stuck = STUCK_RESTARTS
    assert process.probe("/healthz")[0] == 503
    assert process.probe("/readyz")[0] == 503


def test_metrics_are_given_in_the_text_format_of_prometheus(process: Process) -> None:
    status, text = process.probe("/metrics?x=1")
    assert status == 200
    assert "# TYPE triplane_operator_reconcile_seconds histogram" in text


def test_anything_else_is_not_found(process: Process) -> None:
    assert process.probe("/metricsx")[0] == 404
