"""kopf as the watcher, and nothing else: one ``on.event`` handler for our kinds hands raw events over.

No annotations, no finalizers, no timers, no progress: kopf never writes. It runs in a thread with an event
loop of its own, because it takes every task of its loop for its own when it ends, and because a fatal error
in it (a watch ERROR 500, a LIST that keeps failing) must lead to a visible restart of the watches, not of the
work.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import kopf
import structlog

from triplane.adapters.kube import login
from triplane.api.kinds import KINDS
from triplane.api.text import GROUP, VERSION
from triplane.ports import Clock

log = structlog.get_logger(__name__)

Deliver = Callable[[str | None, Mapping[str, Any]], None]

RESTART_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Waits between restarts of failing watches; after the last, always the last: a restart is visible within 10
s."""
HEARTBEAT_SECONDS = 1.0
STOP_SECONDS = 8.0
HANDED_OVER_AT_ONCE = 200
"""Events delivered before the loop gets to do something else."""
TLS_CLOSE_SECONDS = 0.1


class Watcher:
    """Watches our kinds and delivers (type, object) in the event loop that called ``start``.

    ``type`` is None for objects of an initial LIST, else ADDED, MODIFIED or DELETED.
    """

    def __init__(self, kubeconfig: Path | None, namespace: str | None, deliver: Deliver, clock: Clock) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._deliver = deliver
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._stop_session = threading.Event()
        self._main: asyncio.AbstractEventLoop | None = None
        self._beat = 0.0
        self._lock = threading.Lock()
        self._mail: dict[str, tuple[str | None, Mapping[str, Any]]] = {}
        self.restarts = 0
        """How often the watches were begun again in a row."""
        self.restarts_total = 0
        """How often they were begun again since the start."""

    def start(self) -> None:
        """Begin to watch. Call it once, in the event loop that takes the deliveries."""
        self._main = asyncio.get_running_loop()
        self._beat = self._clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether ``start`` was called."""
        return self._thread is not None

    @property
    def dead(self) -> bool:
        """The watching thread has ended, though nobody told it to."""
        return self._thread is not None and not self._thread.is_alive() and not self._stopping.is_set()

    def restart(self, reason: str) -> None:
        """Begin every watch again with a fresh LIST."""
        log.warning("watches are begun again", reason=reason)
        self._stop_session.set()

    async def stop(self) -> None:
        """End the watches; waits a few seconds for their connections to close."""
        self._stopping.set()
        self._stop_session.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def silence(self) -> float:
        """Seconds since the watching thread last showed a sign of life."""
        return self._clock.monotonic() - self._beat

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            self._stop_session = threading.Event()
            if self._stopping.is_set():
                return
            try:
                asyncio.run(self._session())
            except Exception as error:
                log.warning("the watches failed", error=f"{type(error).__name__}: {error}")
            if self._stopping.is_set():
                return
            if self._clock.monotonic() - began > 60:
                self.restarts = 0
            wait = RESTART_SECONDS[min(self.restarts, len(RESTART_SECONDS) - 1)]
            self.restarts += 1
            self.restarts_total += 1
            self._stopping.wait(wait)

    async def _session(self) -> None:
        """One life of kopf's operator."""
        beat = asyncio.create_task(self._keep_beating())
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=watch_settings(),
                standalone=True,
                clusterwide=self._namespace is None,
                namespaces=[self._namespace] if self._namespace else [],
                stop_flag=self._stop_session,
            )
        finally:
            beat.cancel()
            # kopf waits for the flag in a thread, and asyncio.run would wait for that thread for ever.
            self._stop_session.set()
            # aiohttp only begins to close TLS connections; the loop must live until they are.
            await asyncio.sleep(TLS_CLOSE_SECONDS)

    def _post(self, event: str | None, obj: Mapping[str, Any]) -> None:
        """Into the mailbox of the loop that works. What is newer replaces what was not taken in yet, so a slow loop
        finds one event per object, not one per change; an end stays an end."""
        uid = obj["metadata"]["uid"]
        with self._lock:
            waiting = bool(self._mail)
            if uid not in self._mail or self._mail[uid][0] != "DELETED":
                self._mail[uid] = (event, obj)
        if not waiting:
            assert self._main is not None
            self._main.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        with self._lock:
            batch = [self._mail.pop(uid) for uid in list(islice(self._mail, HANDED_OVER_AT_ONCE))]
            more = bool(self._mail)
        if more:
            assert self._main is not None
            self._main.call_soon(self._hand_over)
        for event, obj in batch:
            self._deliver(event, obj)

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self._clock.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def credentials(**_: Any) -> kopf.ConnectionInfo:
            return await connection_info(self._kubeconfig)

        async def observe(event: Mapping[str, Any], **_: Any) -> None:
            self._post(event["type"], event["object"])

        kopf.on.login(registry=registry, retries=5, backoff=1.0)(credentials)
        for cls in KINDS.values():
            kopf.on.event(GROUP, VERSION, cls.info.plural, registry=registry, id="observe")(observe)
        return registry


async def connection_info(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Our credentials in kopf's terms; kopf asks again when the server answers 401."""
    connection = await login.connect(kubeconfig)
    scheme, _, token = (connection.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=connection.ca_file,
        insecure=not connection.verify,
        scheme=scheme or None,
        token=token or None,
        certificate_path=connection.certificate_file,
        private_key_path=connection.key_file,
        trust_env=not login.is_loopback(connection.server),
    )


def watch_settings() -> kopf.OperatorSettings:
    """kopf's settings for watching only (names of kopf 1.45)."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    # Bookmarks come every minute; a stream silent for longer is dead and is opened again within 75 s.
    settings.watching.inactivity_timeout = 70.0
    settings.watching.connect_timeout = 5.0
    settings.watching.reconnect_backoff = 0.1
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    settings.networking.error_backoffs = (0.2, 0.5, 1.0, 1.0, 2.0, 2.0)
    settings.networking.enforce_retry_after = True
    # kopf keeps a task and a queue for every object it has just heard of: after a LIST of thousands, for not long.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 1.0
    settings.queueing.error_delays = (0.1, 0.5, 1.0)
    # The process's end is ours to decide (main.py), and kopf runs in a thread that must not be shot.
    settings.process.ultimate_exiting_timeout = None
    return settings
