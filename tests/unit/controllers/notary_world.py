"""A notary over a log, with its places outside in memory; the log itself may be in Postgres."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.contract.test_event_log import body

from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.notary import MemoryAnchor, MemoryLedger, MemoryNotaryKeys
from triplane.audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from triplane.controllers.distribution import Distribution
from triplane.controllers.notary import Notary, Record
from triplane.domain.continuity import Accepted
from triplane.ports import Anchor, CheckpointStore, EventLog, Ledger, NotaryKeys, Witness


class StandingClock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class NotaryWorld:
    """One installation: what survives its notary."""

    log: EventLog
    store: CheckpointStore
    ledger: Ledger = field(default_factory=MemoryLedger)
    keys: NotaryKeys = field(default_factory=MemoryNotaryKeys)
    anchors: list[Anchor] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    clock: StandingClock = field(default_factory=StandingClock)
    distribution: Distribution | None = None

    @classmethod
    def in_memory(cls, shared: MemoryLog | None = None) -> "NotaryWorld":
        log = shared or MemoryLog.create()
        return cls(MemoryEventLog(log), MemoryCheckpointStore(log), anchors=[MemoryAnchor()])

    @property
    def record(self) -> Record:
        return Record(self.store, self.ledger, self.keys)

    def notary(self, accepted: Accepted | None = None) -> Notary:
        """A new notary, as after a restart."""
        self.distribution = Distribution(
            self.log,
            self.store,
            self.ledger,
            self.clock,
            anchors=self.anchors,
            witnesses=self.witnesses,
            known=lambda: self.record.known(self.log.origin),
            accepted=accepted,
        )
        return Notary(self.log, self.record, self.distribution, self.clock, seconds=0.01, accepted=accepted)

    async def begun(self, accepted: Accepted | None = None) -> Notary:
        notary = self.notary(accepted)
        await notary.begin()
        return notary

    async def signed(self, notary: Notary | None = None) -> Checkpoint:
        """Have a notary sign and hand on what the log is now."""
        notary = notary or await self.begun()
        await notary.sign()
        assert self.distribution is not None
        await self.distribution.deliver()
        assert notary.signed is not None
        return notary.signed

    async def grow(self, size: int) -> None:
        """Append until the log has this size."""
        have, _ = await self.log.head()
        await self.log.append([body(n) for n in range(have, size)])

    async def published(self) -> Checkpoint:
        """The latest checkpoint for readers; its signature is checked."""
        note = await self.store.latest()
        assert note is not None
        return verify_checkpoint(note, self.record.known(self.log.origin).trust()).checkpoint


def size_of(note: bytes | None) -> int | None:
    """The size a checkpoint is of."""
    return None if note is None else parse_checkpoint(note)[0].size
