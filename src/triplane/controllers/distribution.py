"""Hands signed checkpoints to the world: witnesses cosign them, then anchors hold them.

Nothing here holds up a signature: a place that is away is tried again, and gets the newest checkpoint when it is back;
what lies between it never sees. A place that has the newest one is left alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from triplane.audit.checkpoint import Checkpoint, add_signatures, parse_checkpoint
from triplane.audit.merkle import consistency_plan
from triplane.audit.note import parse_note
from triplane.audit.notekey import KeyRing
from triplane.audit.witness import with_cosignatures
from triplane.controllers.continuity import examine, look
from triplane.domain.continuity import Accepted, Finding, Held, Known, Standing, refusal
from triplane.domain.notary import Delivery, due_at
from triplane.errors import Conflict, Contradicted, Fenced, Forbidden, TriplaneError, Unavailable
from triplane.ports import Anchor, CheckpointStore, Clock, EventLog, Ledger, Witness
from triplane.ports.notary import Cosignatures, OtherSize

log = structlog.get_logger(__name__)

WITNESS_SECONDS: Final = 4.0
"""A round of cosignatures takes no longer."""
ANCHOR_SECONDS: Final = 15.0


@dataclass
class Place:
    """What became of the checkpoints for one anchor or witness."""

    name: str
    kind: str
    delivery: Delivery = field(default_factory=Delivery)
    problem: str = ""
    """Why the last attempt failed; empty when it did not."""
    failures: int = 0
    """Since the start."""
    standing: Standing | None = None
    """Of an anchor, when it was last read."""


class Distribution:
    """The places of one log. ``offer`` is all the notary does; ``run`` does the rest."""

    def __init__(
        self,
        event_log: EventLog,
        checkpoints: CheckpointStore,
        ledger: Ledger,
        clock: Clock,
        *,
        anchors: Sequence[Anchor] = (),
        witnesses: Sequence[Witness] = (),
        known: Callable[[], Known],
        accepted: Accepted | None = None,
    ) -> None:
        self._log = event_log
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._clock = clock
        self._known = known
        self._accepted = accepted
        self.anchors = tuple(anchors)
        self.witnesses = tuple(witnesses)
        self.anchored = tuple(Place(anchor.uri, anchor.kind) for anchor in anchors)
        self.witnessed = tuple(Place(witness.key.name, "witness") for witness in witnesses)
        self._sizes = [0] * len(self.witnesses)
        """Of the last checkpoint each witness cosigned, as far as is known here."""
        self._note: bytes | None = None
        self._checkpoint: Checkpoint | None = None
        self._cosigned: set[bytes] = set()
        """Cosignature lines on it."""
        self._news = asyncio.Event()

    @property
    def cosignatures(self) -> int:
        """Witnesses that have cosigned the newest checkpoint."""
        size = -1 if self._checkpoint is None else self._checkpoint.size
        return sum(place.delivery.size == size for place in self.witnessed)

    def offer(self, note: bytes) -> None:
        """This is the newest checkpoint now."""
        self._note, self._checkpoint, self._cosigned = note, parse_checkpoint(note)[0], set()
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled. Raises ``Contradicted`` when an anchor speaks against the log."""
        while True:
            await self._wait()
            self._news.clear()
            await self.deliver()

    async def deliver(self) -> None:
        """Give the newest checkpoint to every place that is due now."""
        if self._note is None or self._checkpoint is None:
            return
        now = self._clock.monotonic()
        size = self._checkpoint.size
        due = [number for number, place in enumerate(self.witnessed) if _is_due(place, size, 0.0, now)]
        await asyncio.gather(*(self._ask(number, self._note, self._checkpoint) for number in due))
        note = await self._with_cosignatures(self._note)
        await asyncio.gather(
            *(
                self._anchor(anchor, place, note, size)
                for anchor, place in zip(self.anchors, self.anchored, strict=True)
                if _is_due(place, size, anchor.every_seconds, now)
            )
        )

    async def close(self) -> None:
        """Close the connections."""
        for anchor in self.anchors:
            await anchor.close()
        for witness in self.witnesses:
            await witness.close()

    async def _wait(self) -> None:
        """Until there is news, or a place that failed or was given something just now is due."""
        dues = []
        if self._checkpoint is not None:
            size = self._checkpoint.size
            dues = [due_at(place.delivery, size) for place in self.witnessed]
            dues += [
                due_at(place.delivery, size, anchor.every_seconds)
                for anchor, place in zip(self.anchors, self.anchored, strict=True)
            ]
        next_due = min((due for due in dues if due is not None), default=None)
        if next_due is None:
            await self._news.wait()
            return
        try:
            async with asyncio.timeout(max(0.0, next_due - self._clock.monotonic())):
                await self._news.wait()
        except TimeoutError:
            pass

    # Witnesses

    async def _ask(self, number: int, note: bytes, checkpoint: Checkpoint) -> None:
        place, witness = self.witnessed[number], self.witnesses[number]

        async def ask() -> None:
            for _ in range(2):  # a witness that is asked from the wrong size says from which to ask
                old = self._sizes[number]
                answer = await witness.add_checkpoint(old, await self._growth(old, checkpoint.size), note)
                if isinstance(answer, Cosignatures):
                    self._take(with_cosignatures(note, answer.body, KeyRing([witness.key])), note)
                    self._sizes[number] = checkpoint.size
                    return
                if not isinstance(answer, OtherSize):
                    raise Forbidden(f"it answers {answer.status}: {answer.said}")
                if answer.size > checkpoint.size:
                    raise Conflict(
                        f"it has cosigned {answer.size} entries, the log has {checkpoint.size}: if that witness is "
                        "to be believed, the log was rolled back"
                    )
                self._sizes[number] = answer.size
            raise Unavailable("it keeps answering that its last checkpoint is of another size")

        await self._attempt(place, checkpoint.size, WITNESS_SECONDS, ask)

    async def _growth(self, old: int, new: int) -> Sequence[bytes]:
        if old in {0, new}:
            return ()
        plan = consistency_plan(old, new)
        return plan.fold(await self._checkpoints.hashes(plan.nodes))

    def _take(self, cosigned: bytes, note: bytes) -> None:
        plain = {item.line for item in parse_note(note).signatures}
        if note == self._note:
            self._cosigned |= {item.line for item in parse_note(cosigned).signatures} - plain

    async def _with_cosignatures(self, note: bytes) -> bytes:
        """The checkpoint with all that it has; published so."""
        if not self._cosigned:
            return note
        whole = add_signatures(note, sorted(self._cosigned))
        try:
            await self._checkpoints.publish(whole)
        except Conflict:
            log.info("cosignatures came after the next checkpoint")
        except Unavailable as error:
            log.warning("cosignatures could not be published", error=str(error))
        return whole

    # Anchors

    async def _anchor(self, anchor: Anchor, place: Place, note: bytes, size: int) -> None:
        async def write() -> None:
            held = await look(anchor, self._ledger)
            finding = await self._compare(held)
            place.standing = finding.standing
            if finding.standing in {Standing.UNREACHABLE, Standing.UNVERIFIED}:
                raise Unavailable(finding.message)
            if finding.standing is Standing.ABSENT:
                log.info("an anchor begins: it vouches for the log from here on", anchor=anchor.uri, size=size)
            elif finding.standing in {Standing.VANISHED, Standing.STALE}:
                log.error("somebody has been at an anchor", anchor=anchor.uri, said=finding.message)
            if held.note != note:
                await anchor.write(note)
            if held.anchored != size:
                await asyncio.to_thread(self._ledger.note_anchored, anchor.uri, size)

        await self._attempt(place, size, ANCHOR_SECONDS, write)

    async def _compare(self, held: Held) -> Finding:
        (finding,) = await examine(self._log, self._checkpoints, [held], self._known())
        if error := refusal([finding], self._accepted):
            raise error
        return finding

    async def _attempt(self, place: Place, size: int, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await action()
        except (Contradicted, Fenced):
            raise
        except (TriplaneError, TimeoutError) as error:
            problem = str(error) or f"no answer within {seconds:.0f} s"
            place.delivery = place.delivery.failed(self._clock.monotonic())
            place.failures += 1
            if problem != place.problem:
                log.warning("a checkpoint was not taken", place=place.name, size=size, error=problem)
            place.problem = problem
        else:
            if place.problem:
                log.info("checkpoints are taken again", place=place.name, size=size)
            place.delivery, place.problem = place.delivery.took(size, self._clock.monotonic()), ""


def _is_due(place: Place, size: int, every_seconds: float, now: float) -> bool:
    due = due_at(place.delivery, size, every_seconds)
    return due is not None and due <= now
