"""The journal of one run: records are buffered briefly and sent in numbered segments.

A segment goes out a second after its first record, or at 64 KiB. While the gateway is away segments grow, up to
256 KiB, and wait; when 4 MiB wait, ``add`` waits too, and through the pipe so does the harness.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from triplane.domain.redaction import KnownSecrets
from triplane.failpoint import failpoint
from triplane.session.client import RunGateway
from triplane.session.harness.protocol import Record

FLUSH_SECONDS = 1.0
FLUSH_OCTETS = 64 * 1024
MAX_SEGMENT = 256 * 1024
MAX_RECORDS = 500
"""Records of one segment."""
MAX_WAITING = 4 * 1024 * 1024
MAX_TOTAL = 64 * 1024 * 1024
"""Octets of a run's journal; what is said beyond is dropped, and one record says so."""


class Journal:
    """Ordered, loss-free up to ``MAX_TOTAL``. Start ``run`` as a task; end with ``close``."""

    def __init__(
        self,
        gateway: RunGateway,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._gateway = gateway
        self._now = now
        self._known = KnownSecrets(secrets)
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._first_heard: float | None = None
        self._octets = self._total = self._sent = 0
        self._changed = asyncio.Condition()
        self._closing = False

    async def add(self, record: Record) -> None:
        """Queue a record; waits while too much is queued."""
        if self._total > MAX_TOTAL:
            return
        if self._first_heard is None:
            self._first_heard = _monotonic()
        occurred = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        payload = self._known.redacted_json(dict(record.payload))
        entry = {"type": record.type, "occurredAt": occurred, "payload": payload}
        octets = len(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace"))
        self._total += octets
        if self._total > MAX_TOTAL:
            text = f"the journal of a run holds {MAX_TOTAL} octets; what the harness said after this is dropped"
            entry = {"type": "message", "occurredAt": occurred, "payload": {"stream": "host", "text": text}}
        async with self._changed:
            await self._changed.wait_for(lambda: self._octets < MAX_WAITING)
            self._waiting.append((entry, octets))
            self._octets += octets
            self._changed.notify_all()

    async def run(self) -> None:
        """Send segments until closed and empty. Raises what the gateway answers, ``RunEnded`` above all."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                if not self._closing:
                    await self._linger()
                segment, octets = self._next_segment()
            failpoint("session.before_record")
            assert self._first_heard is not None  # there is a segment
            await self._gateway.record(self._sent + 1, segment, 0.0 if self._sent else _monotonic() - self._first_heard)
            failpoint("session.after_record")
            self._sent += 1
            async with self._changed:
                del self._waiting[: len(segment)]
                self._octets -= octets
                self._changed.notify_all()

    async def close(self) -> None:
        """No record comes after this: let ``run`` send what waits and return."""
        async with self._changed:
            self._closing = True
            self._changed.notify_all()

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._changed.wait_for(
                    lambda: self._octets >= FLUSH_OCTETS or len(self._waiting) >= MAX_RECORDS or self._closing
                )
        except TimeoutError:
            return

    def _next_segment(self) -> tuple[list[dict[str, Any]], int]:
        segment: list[dict[str, Any]] = []
        octets = 0
        for entry, size in self._waiting:
            if segment and (octets + size > MAX_SEGMENT or len(segment) == MAX_RECORDS):
                break
            segment.append(entry)
            octets += size
        return segment, octets


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
