"""What happens in the live plane, as it reaches the operator: log entries by a durable cursor, and the bell.

The cursor only saves reading: every object is reconciled at start-up anyway, so an entry whose key was
enqueued but not worked on before a crash is not lost. It is therefore saved at most once a second, behind the
work.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

import structlog

from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.errors import Archived, Fenced, TriplaneError
from triplane.operator.index import Index
from triplane.ports import EventLog, SessionStore

log = structlog.get_logger(__name__)

CURSOR = "operator"
SAVE_SECONDS = 1.0
RETRY_SECONDS = 1.0
BELL_SECONDS = 5.0

RUN_TYPES = frozenset({"run.claimed", "run.started", "run.finished", "run.lost", "run.revoked", "tool.asked"})
"""What others append and the operator must act on; journal segments (``run.recorded``) change no status."""
SUMMED_TYPES = frozenset({"policy.violated"})
"""What the status of the subject sums up."""
SUMMED_SECONDS = 1.0


class Consumer:
    """Turns log entries and rings into keys. Both loops restart by themselves when a store was away."""

    def __init__(
        self, event_log: EventLog, sessions: SessionStore, index: Index, enqueue: Callable[[Key, float], None]
    ) -> None:
        self._log = event_log
        self._sessions = sessions
        self._index = index
        self._enqueue = enqueue
        self._seen = -1
        self._saved = -1

    @property
    def seen(self) -> int:
        """Sequence of the last entry handed on; -1 before the first."""
        return self._seen

    async def run(self) -> None:
        """Consume until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self._consume))
            group.create_task(self._for_ever(self._answer_bell))
            group.create_task(self._for_ever(self._save))

    async def _for_ever(self, loop: Callable[[], Any]) -> None:
        while True:
            try:
                await loop()
            except Fenced:
                raise
            except TriplaneError as error:
                log.warning("the event stream was interrupted", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _consume(self) -> None:
        if self._seen < 0:
            self._seen = self._saved = await self._sessions.cursor(CURSOR)
        try:
            async for recorded in self._log.stream(EventFilter(types=RUN_TYPES | SUMMED_TYPES), after=self._seen):
                self._handle(recorded.entry["subject"])
                self._seen = recorded.seq
        except Archived as error:
            # What is this old only asks for looks, and everything is looked at when the operator starts.
            log.warning("entries were archived before they were seen", error=str(error))
            self._seen = error.upto - 1

    def _handle(self, subject: Any) -> None:
        if subject["kind"] == "AgentSession":
            self._enqueue(Key("AgentSession", subject["namespace"], subject["name"]), 0.0)
        elif subject["kind"] == "Policy":
            self._enqueue(Key("Policy", subject["namespace"], subject["name"]), SUMMED_SECONDS)

    async def _answer_bell(self) -> None:
        asked: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        async with self._sessions.changes() as bell:
            while True:
                wanted = await self._sessions.wanted()
                # The bell rings for every change; what cannot be permitted now is not asked for at each.
                asked = {uid: asked[uid] for uid in wanted if loop.time() - asked.get(uid, -inf) < BELL_SECONDS}
                for uid in wanted:
                    session = self._index.by_uid(uid)
                    if uid not in asked and session is not None:
                        asked[uid] = loop.time()
                        task = session["spec"]["taskRef"]["name"]
                        self._enqueue(Key("Task", session["metadata"]["namespace"], task), 0.0)
                await bell.wait(BELL_SECONDS)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self._seen > self._saved:
                seen = self._seen
                await self._sessions.set_cursor(CURSOR, seen)
                self._saved = seen
