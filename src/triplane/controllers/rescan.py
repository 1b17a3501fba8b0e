"""Reading the log again for ever, at a bounded rate: what is altered in the database is found, not stumbled upon.

A round goes from the first entry to the head, part by part, with a rest after each, and compares the tree with the
checkpoints that were published. The next round begins from nothing, so a break that was mended is seen to be. A round
that meets a break ends there; who wants to hear of it is told once for each break, and once when it is gone.

Nothing ends it but its cancellation, or a newer operator. While the log cannot be read, the same part is tried again: a
round of days must not begin anew for each short outage, or it might never come to its end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from triplane.audit.chain import BreakReason, broken_at
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, verify_checkpoint
from triplane.audit.model import Break, Verification
from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import Given, Progress, TreeState
from triplane.errors import Corrupt, Fenced, InvalidNote, TriplaneError, Unavailable
from triplane.ports import CheckpointStore, Clock, EventLog

log = structlog.get_logger(__name__)

PART: Final = 4 * WIDTH
IDLE_SHARE: Final = 0.9
"""At least so much of the time it rests."""
_CHECKPOINTS: Final = 100
_RETRY_SECONDS: Final = 5.0

Tell = Callable[[Break | None], Awaitable[None]]
"""Called with a break that was found, and with None when a round has found none; again, until it does not raise."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it goes."""

    entries_per_second: float
    """In the mean over a round."""
    rest_seconds: float
    """Between two rounds."""


class Rescan:
    """Verifies the log again and again. Raises ``Fenced`` from ``run`` when what tells does; nothing else."""

    def __init__(
        self,
        event_log: EventLog,
        checkpoints: CheckpointStore,
        trust: Callable[[], CheckpointTrust | None],
        tell: Tell,
        pace: Pace,
    ) -> None:
        self._log = event_log
        self._checkpoints = checkpoints
        self._trust = trust
        self._trusted: CheckpointTrust | None = None
        self._tell = tell
        self._pace = pace
        self._told: tuple[int, str] | bool | None = False
        """What was told last: a break's place and reason, None for none, False for nothing yet."""
        self.verified = 0
        """Entries verified since the start."""
        self.through = 0
        """Entries the running round has verified, or the last one, if it was whole."""
        self.rounds = 0
        """Rounds that went to the head and found nothing wrong."""
        self.failures = 0
        """Rounds that met a break."""
        self.errors = 0
        """Attempts at a part, or to tell of what was found, that failed. Says nothing of the log but that it was not
        verified meanwhile."""
        self.broken: Break | None = None
        """What the last round that ended found."""

    async def run(self, clock: Clock) -> None:
        """For ever."""
        while True:
            try:
                await self.round(clock)
            except Fenced:
                raise
            except TriplaneError as error:
                self.errors += 1
                log.warning("the log was not verified, or what was found not told; trying again", error=str(error))
            except Exception as error:
                self.errors += 1
                log.exception("the log was not verified; trying again. Report this", error=repr(error))
            await asyncio.sleep(self._pace.rest_seconds)

    async def round(self, clock: Clock) -> Break | None:
        """From the first entry to the head, with rests; the first break."""
        state: TreeState | None = None
        self._trusted = self._trust()
        agreed = 0
        while True:
            began, before = clock.monotonic(), 0 if state is None else state.size
            try:
                found, state = await self._part(state, agreed)
            except Unavailable as error:
                self.errors += 1
                log.warning("the log was not verified; trying the same part again", after=before, error=str(error))
                await asyncio.sleep(min(self._pace.rest_seconds, _RETRY_SECONDS))
                continue
            agreed = max(found.compared, default=agreed)
            self.verified += found.count
            self.through = max(found.last + 1, 0)
            if found.broken is not None or state is None:
                await self._ended(found.broken)
                return found.broken
            took = clock.monotonic() - began
            wanted = (state.size - before) / self._pace.entries_per_second
            await asyncio.sleep(max(wanted - took, took * IDLE_SHARE / (1 - IDLE_SHARE)))

    async def _part(self, state: TreeState | None, agreed: int) -> tuple[Verification, TreeState | None]:
        """Verify the next entries; where to go on, None at the head."""
        reached: list[Progress] = []
        given = Given(state, await self._signed(state), reached.append, agreed=agreed, part=PART)
        try:
            found = await self._log.verify_chain(given=given)
        except Corrupt as error:
            lost = broken_at(0, BreakReason.HEAD_MISMATCH, str(error))
            return Verification(self._log.origin, 0, -1, 0, "", lost), None
        size, _ = await self._log.head()
        more = found.broken is None and found.last + 1 < size and bool(reached)
        return found, reached[-1].state if more else None

    async def _signed(self, state: TreeState | None) -> tuple[Checkpoint, ...]:
        """The checkpoints that the next part may be held against, and the latest."""
        trust = self._trusted
        if trust is None:
            return ()
        first = 0 if state is None else state.size
        notes = [note for _, note in await self._checkpoints.published(after=first - 1, limit=_CHECKPOINTS)]
        if (latest := await self._checkpoints.latest()) is not None:
            notes.append(latest)
        found: dict[Checkpoint, None] = {}
        for note in notes:
            try:
                found[verify_checkpoint(note, trust).checkpoint] = None
            except InvalidNote as error:
                log.warning("a published checkpoint is not believed", error=str(error))
        return tuple(found)

    async def _ended(self, broken: Break | None) -> None:
        self.broken = broken
        if broken is None:
            self.rounds += 1
        else:
            self.failures += 1
            log.error(
                "THE LOG IS BROKEN",
                sequence=broken.seq,
                reason=broken.reason,
                problem=broken.message,
                remedy=broken.remedy,
            )
        news = None if broken is None else (broken.seq, broken.reason)
        if self._told is False or news != self._told:
            await self._tell(broken)
            self._told = news
