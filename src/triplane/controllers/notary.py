"""The notary: re-read what was committed → decide whether it continues what was signed → sign, keep, publish.

Nothing is believed for standing in the database. At a start the peaks of the last signed tree are read there and must
make the root that was signed; from then on every entry is hashed again. The order of a signature is what makes it safe:
subtrees first, then the record that only ever moves on (compare and swap, durable), then the copy for readers, and only
then the world. A notary that dies anywhere signs the same checkpoint again, or a later one, never another.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from triplane.audit.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from triplane.audit.dsse import load_public_key
from triplane.audit.merkle import Node, inclusion_plan, root_plan, verify_inclusion
from triplane.audit.model import EventFilter
from triplane.audit.subtrees import GrowingTree
from triplane.controllers.continuity import OWN_RECORD, PAGE, PUBLISHED, examine, gather_places
from triplane.controllers.distribution import Distribution
from triplane.domain.continuity import TROUBLED, Accepted, Finding, Held, Known, Standing, opened, refusal
from triplane.domain.events import checkpoint_abandoned
from triplane.domain.notary import Reading, check_head
from triplane.errors import Conflict, Contradicted, Corrupt, Fenced, InvalidProof, TriplaneError
from triplane.ports import CheckpointStore, Clock, EventLog, Ledger, NotaryKeys

log = structlog.get_logger(__name__)

SMALL_PAGE: Final = 32
"""So few entries are hashed in the event loop: quicker than a thread begins."""
CLOSING_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Record:
    """Where the notary keeps what it has signed, and with what it signs."""

    checkpoints: CheckpointStore
    ledger: Ledger
    keys: NotaryKeys

    def known(self, origin: str) -> Known:
        """The keys by which this installation's checkpoints are known."""
        public = [*(signer.public_key for signer in self.keys.signers()), *self.keys.retired()]
        return Known(origin, tuple(load_public_key(key).public_bytes_raw() for key in public))


class Notary:
    """Signs the log of one origin, as long as it is the only one to."""

    def __init__(
        self,
        event_log: EventLog,
        record: Record,
        distribution: Distribution,
        clock: Clock,
        *,
        seconds: float = 5.0,
        accepted: Accepted | None = None,
    ) -> None:
        """``seconds`` between two checkpoints at least. ``accepted``: what somebody gave up (``domain.continuity``)."""
        self._log = event_log
        self._record = record
        self._distribution = distribution
        self._clock = clock
        self._seconds = seconds
        self._accepted = accepted
        self._reading: Reading | None = None
        self._note: bytes | None = None
        """What the ledger holds."""
        self._offered: bytes | None = None
        """What was published and handed on last."""
        self.signed: Checkpoint | None = None
        self.signed_at: float | None = None
        """Monotonic seconds."""
        self.findings: tuple[Finding, ...] = ()
        """How the log stood to every place at the start."""

    @property
    def distribution(self) -> Distribution:
        """What became of the checkpoints outside."""
        return self._distribution

    async def begin(self) -> None:
        """Compare the log with everything that was signed of it; to be awaited before anything acts on the log.

        Raises ``Contradicted`` when it is behind a checkpoint or forks from it, and what the stores raise.
        """
        known = self._record.known(self._log.origin)
        places = await gather_places(self._record.checkpoints, self._record.ledger, self._distribution.anchors)
        self.findings = tuple(await examine(self._log, self._record.checkpoints, places, known))
        for finding in self.findings:
            if finding.contradicts or finding.standing in TROUBLED:
                log.warning("a checkpoint was looked for", standing=finding.standing.value, said=finding.message)
        if error := refusal(self.findings, self._accepted):
            raise error
        if self._accepted is not None and any(finding.contradicts for finding in self.findings):
            await self._tell_abandoned(self._accepted)
        self._note = places[0].note
        await self._resume(self.findings[0])

    async def _tell_abandoned(self, accepted: Accepted) -> None:
        """In the log itself, once: it is part of its story that another one was signed."""
        earlier = await self._log.query(EventFilter(types=frozenset({"checkpoint.abandoned"})), limit=10_000)
        number = len(earlier) + 1
        event = checkpoint_abandoned(self._log.origin, number, accepted.origin, accepted.size, accepted.root)
        if all(recorded.entry["data"] != event.data for recorded in earlier):
            await self._log.append([event])
        log.warning("a signed checkpoint was given up", origin=accepted.origin, size=accepted.size)

    async def _resume(self, own: Finding) -> None:
        """Go on from the largest checkpoint of ours that the log continues, wherever it is kept: none can be forged.
        From genesis where there is none."""
        if own.standing is Standing.UNVERIFIED:
            raise Contradicted(f"{OWN_RECORD}: {own.message}")
        self._reading = Reading(self._log.origin)
        if own.standing is Standing.CONTINUES:
            self.signed = own.checkpoint
        seen = [item.checkpoint for item in self.findings if item.standing is Standing.CONTINUES and item.checkpoint]
        last = self.signed or max(seen, key=lambda item: item.size, default=None)
        if last is not None and (reading := await self._peaks(last)) is not None:
            self._reading = reading

    async def _peaks(self, signed: Checkpoint) -> Reading | None:
        """The signed tree, from kept hashes that make its root; None when they are not all there."""
        if signed.size == 0:
            return None
        plan = root_plan(signed.size)
        last = inclusion_plan(signed.size - 1, signed.size)
        try:
            leaf, *hashes = await self._record.checkpoints.hashes((Node(0, signed.size - 1), *plan.nodes, *last.nodes))
        except Corrupt as error:
            log.warning("hashes of the tree are missing; the whole log is read again", error=str(error))
            return None
        tree = GrowingTree(signed.size, hashes[: len(plan.nodes)])
        try:
            verify_inclusion(signed.size - 1, signed.size, leaf, last.fold(hashes[len(plan.nodes) :]), tree.root())
        except InvalidProof as error:
            raise Contradicted(
                f"the hash kept of entry {signed.size - 1} of {self._log.origin} is not what was signed: {error}. "
                "Run `triplane log verify`, restore what was changed"
            ) from error
        if tree.root() != signed.root:
            raise Contradicted(
                f"the hashes kept of the first {signed.size} entries of {self._log.origin} make root "
                f"{tree.root().hex()}, {signed.root.hex()} was signed. Run `triplane log verify`"
            )
        return Reading(self._log.origin, tree, leaf.hex())

    async def run(self) -> None:
        """Sign whenever the log has moved, until cancelled. Raises ``Contradicted`` and ``Fenced``, after which
        nothing may go on; a store that is away is waited for."""
        distributing = asyncio.create_task(self._distribution.run(), name="checkpoint distribution")
        try:
            while not distributing.done():
                try:
                    await self.sign()
                except (Contradicted, Fenced):
                    raise
                except TriplaneError as error:
                    log.warning("no checkpoint could be signed; trying again", error=str(error))
                await asyncio.wait([distributing], timeout=self._seconds)
            await distributing
        finally:
            distributing.cancel()
            await asyncio.gather(distributing, return_exceptions=True)

    async def close(self) -> None:
        """Sign what is left and hand it on, in a few seconds; what then is not done the next operator does."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                if self._reading is not None:
                    await self.sign()
                    await self._distribution.deliver()
        except (TriplaneError, TimeoutError) as error:
            log.info("the last checkpoint was not handed on everywhere", error=f"{type(error).__name__}: {error}")
        finally:
            await self._distribution.close()

    async def sign(self) -> bool:
        """Sign the log as it is now; False when it has not moved since. Raises as ``run``, and ``Unavailable``."""
        if self._reading is None:
            await self.begin()
        reading = self._reading
        assert reading is not None
        size, leaf = await self._log.head()
        moved = self.signed is None or self.signed.size != size
        check_head(reading, size, leaf)
        if moved:
            await self._read(reading, size)
            await self._log.check_epoch()
            head = reading.head
            note = sign_checkpoint(head, head.origin, self._record.keys.signers())
            await asyncio.to_thread(self._replace, note)
            self.signed, self.signed_at = head, self._clock.monotonic()
        if self._note is not None and self._offered != self._note:  # also what a crash or a failure came between
            await self._publish(self._note)
            self._distribution.offer(self._note)
            self._offered = self._note
        return moved

    async def _read(self, reading: Reading, size: int) -> None:
        while reading.tree.size < size:
            page = await self._log.query(after=reading.tree.size - 1, limit=min(PAGE, size - reading.tree.size))
            if not page:
                raise Contradicted(
                    f"entry {reading.tree.size} of {reading.origin} is missing, though the head names {size}: "
                    "run `triplane log verify`, restore what is missing"
                )
            if len(page) > SMALL_PAGE:
                await asyncio.to_thread(reading.extend, page)
            else:
                reading.extend(page)
            await self._keep(reading)

    async def _keep(self, reading: Reading) -> None:
        try:
            await self._record.checkpoints.keep(reading.tree.completed)
        except Conflict as error:
            raise Contradicted(f"{error}: what was hashed before and what is hashed now differ") from error
        reading.tree.completed.clear()

    def _replace(self, note: bytes) -> None:
        try:
            self._record.ledger.replace(self._note, note)
        except Conflict as error:
            raise Fenced(f"{error}: another notary signs for this log") from error
        self._note = note  # here, in the thread: also when whoever waits for it is cancelled meanwhile

    async def _publish(self, note: bytes) -> None:
        try:
            await self._record.checkpoints.publish(note)
        except Conflict as error:
            # One ahead of ours is a copy of what we signed before our record was restored: it is caught up with.
            held = Held(PUBLISHED, await self._record.checkpoints.latest())
            latest = opened(held, self._record.known(self._log.origin))
            if isinstance(latest, Finding) or latest.size <= parse_checkpoint(note)[0].size:
                said = latest.message if isinstance(latest, Finding) else str(error)
                raise Contradicted(f"{said}. Run `triplane log verify`") from error
