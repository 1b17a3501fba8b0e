"""A uvicorn server that ends on SIGTERM and SIGINT through the event loop, and tells when it listens."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """Calls ``on_start`` once it listens, and ``on_stop`` as soon as the signal comes; a second signal ends at once.

    ``linger`` is the seconds in which, after the signal, open connections are still answered, each for the last time:
    an asker that keeps connections and may not repeat a request (RFC 9110, section 9.2.2) then meets no closed one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_start: Callable[[], None],
        on_stop: Callable[[], None] | None = None,
        *,
        linger: float = 0,
    ) -> None:
        super().__init__(config)
        self._on_start = on_start
        self._on_stop = on_stop
        self._linger = linger
        self._second_signal = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Instead of uvicorn's, which raises the signal again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Announce only what already listens."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, end each open one with its next answer, and close after ``linger`` what was idle."""
        if self._linger:
            for server in self.servers:
                server.close()
            self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._second_signal.wait(), self._linger)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """What a signal does."""
        if self.should_exit:
            self.force_exit = True
            self._second_signal.set()
        self.should_exit = True
        if self._on_stop is not None:
            self._on_stop()
