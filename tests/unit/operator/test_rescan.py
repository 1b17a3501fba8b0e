"""The continuous verifier: it reads on and on, finds what was altered, and tells of it once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from tests.contract.test_event_log import body

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.model import Break, Verification
from triplane.audit.notekey import KeyRing, KeyType, key_of
from triplane.audit.verifying import Given
from triplane.controllers import rescan as module
from triplane.controllers.rescan import Pace, Rescan
from triplane.errors import Corrupt, Fenced, Unavailable
from triplane.operator.rescan import Herald, rescanning
from triplane.ports import Cluster, EventLog, KubeEvent

KEY = MemorySigner(b"the log")
PART = 256
SIZE = 2 * PART + 50


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", PART)


@dataclass
class World:
    """A log of ``SIZE`` entries in memory, and a verifier that hurries."""

    shared: MemoryLog
    told: list[Break | None] = field(default_factory=list)
    refusing: int = 0

    def __post_init__(self) -> None:
        self.checkpoints = MemoryCheckpointStore(self.shared)
        self.log = MemoryEventLog(self.shared)
        self.rescan = self.over(self.log)

    def over(self, log: EventLog) -> Rescan:
        return Rescan(log, self.checkpoints, self.trust, self.tell, Pace(1e9, 0.001))

    def trust(self) -> CheckpointTrust:
        return CheckpointTrust(self.shared.origin, KeyRing([key_of(self.shared.origin, KeyType.ED25519, KEY)]))

    async def tell(self, broken: Break | None) -> None:
        if self.refusing:
            self.refusing -= 1
            raise Unavailable("not now")
        self.told.append(broken)

    def alter(self, seq: int) -> None:
        recorded, digest = self.shared.rows[seq]
        self.shared.rows[seq] = (replace(recorded, leaf_hash="ab" * 32), digest)

    async def publish(self, size: int, root: bytes | None = None) -> None:
        made = root or bytes.fromhex((await self.log.verify_chain(last=size - 1)).root)
        note = sign_checkpoint(Checkpoint(self.shared.origin, size, made), self.shared.origin, [KEY])
        await self.checkpoints.publish(note)

    async def round(self) -> Break | None:
        return await self.rescan.round(SystemClock())


@pytest.fixture
async def world() -> World:
    made = World(MemoryLog.create())
    await made.log.append([body(n) for n in range(SIZE - 2)])
    return made


async def test_a_round_reads_everything_once_and_says_once_that_all_is_well(world: World) -> None:
    await world.publish(300)
    await world.publish(SIZE)
    assert await world.round() is None
    assert await world.round() is None
    rescan = world.rescan
    assert (rescan.verified, rescan.through, rescan.rounds, rescan.failures) == (2 * SIZE, SIZE, 2, 0)
    assert world.told == [None]


@pytest.mark.parametrize("seq", [0, 5, PART - 1, PART, 2 * PART + 7, SIZE - 1])
async def test_the_first_bad_entry_is_told_once_wherever_it_is_and_once_when_it_is_mended(
    world: World, seq: int
) -> None:
    good = world.shared.rows[seq]
    world.alter(seq)
    for _ in range(3):
        found = await world.round()
        assert found is not None
        assert (found.seq, found.reason) == (seq, "LeafHashMismatch")
        assert found.remedy
    assert (world.rescan.failures, world.rescan.rounds, world.rescan.broken) == (3, 0, found)
    world.shared.rows[seq] = good
    await world.round()
    assert world.told == [found, None]
    assert world.rescan.broken is None


async def test_a_log_that_differs_from_a_published_checkpoint_is_broken(world: World) -> None:
    await world.publish(200)
    await world.publish(PART + 100, b"\x01" * 32)
    found = await world.round()
    assert found is not None
    assert (found.seq, found.reason) == (200, "CheckpointMismatch")


async def test_a_log_shorter_than_a_published_checkpoint_is_broken(world: World) -> None:
    await world.publish(SIZE + 10, b"\x01" * 32)
    found = await world.round()
    assert found is not None
    assert (found.seq, found.reason) == (SIZE, "EntryMissing")


async def test_what_is_appended_meanwhile_is_part_of_the_next_round_at_the_latest(world: World) -> None:
    await asyncio.gather(world.round(), world.log.append([body(n) for n in range(9000, 9040)]))
    await world.round()
    assert world.rescan.through == SIZE + 40
    assert world.told == [None]


async def test_a_telling_that_failed_is_made_up_for(world: World) -> None:
    world.alter(3)
    world.refusing = 2
    running = asyncio.create_task(world.rescan.run(SystemClock()))
    async with asyncio.timeout(60):
        while not world.told:
            await asyncio.sleep(0.01)
    running.cancel()
    assert world.told[0] is not None
    assert world.rescan.failures >= 3


class Failing(MemoryEventLog):
    """Raises ``errors``, one a call, and works when none is left; ``begun`` is from where each call went on."""

    def __init__(self, shared: MemoryLog, *errors: Exception | None) -> None:
        super().__init__(shared)
        self.errors = list(errors)
        self.begun: list[int] = []

    async def verify_chain(self, *, first: int = 0, last: int | None = None, given: Given = Given()) -> Verification:
        self.begun.append(0 if given.start is None else given.start.size)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return await super().verify_chain(first=first, last=last, given=given)


async def test_a_log_without_a_head_is_broken_and_a_store_that_is_away_is_not(world: World) -> None:
    rescan = world.over(Failing(world.shared, Corrupt("the head row is gone"), Unavailable("not now")))
    found = await rescan.round(SystemClock())
    assert found is not None
    assert (found.reason, found.message) == ("HeadMismatch", "the head row is gone")
    assert await rescan.round(SystemClock()) is None
    assert (rescan.failures, rescan.errors, rescan.rounds) == (1, 1, 1)


async def test_a_store_that_was_away_does_not_begin_the_round_anew(world: World) -> None:
    await world.publish(300)
    await world.publish(PART + 100, b"\x01" * 32)
    log = Failing(world.shared, None, Unavailable("not now"), Unavailable("not now"))
    rescan = world.over(log)
    found = await rescan.round(SystemClock())
    assert log.begun == [0, PART, PART, PART]
    assert found is not None
    assert (found.seq, found.reason, rescan.errors) == (300, "CheckpointMismatch", 2)


async def test_no_error_ends_the_verifier(world: World) -> None:
    rescan = world.over(Failing(world.shared, TypeError("a column is NULL"), None, KeyError("x")))
    running = asyncio.create_task(rescan.run(SystemClock()))
    async with asyncio.timeout(60):
        while not rescan.rounds:
            assert not running.done()
            await asyncio.sleep(0.01)
    running.cancel()
    assert rescan.errors == 2


class Server:
    """An API server of one ConfigMap."""

    def __init__(self) -> None:
        self.data: dict[str, str] | None = {}
        self.writes = 0
        self.events: list[KubeEvent] = []

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        assert (namespace, name) == ("triplane-system", "triplane-log")
        return self.data

    async def write_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        self.writes += 1
        self.data = dict(data)

    async def emit(self, event: KubeEvent) -> None:
        self.events.append(event)


BROKEN = Break(17, "PrevMismatch", "entry 17: prev is another", "restore the log")


async def test_nothing_is_written_while_all_is_well_and_a_break_is_a_condition_and_an_event() -> None:
    server = Server()
    herald = Herald(cast(Cluster, server), server, SystemClock())
    await herald.tell(None)
    assert (server.writes, server.events) == (0, [])
    await herald.tell(BROKEN)
    assert server.data is not None
    wanted = {"verified": "False", "sequence": "17", "reason": "PrevMismatch", "remedy": "restore the log"}
    assert wanted.items() <= server.data.items()
    assert (server.events[0].type, server.events[0].reason) == ("Warning", "LogBroken")
    assert "entry 17" in server.events[0].message
    await herald.tell(BROKEN)
    assert server.writes == 1
    await herald.tell(None)
    assert (server.data["verified"], server.data["sequence"]) == ("True", "")


async def test_the_verifier_ends_with_the_body_and_its_own_end_is_not_the_bodys(world: World) -> None:
    async with rescanning(world.rescan, SystemClock()):
        async with asyncio.timeout(60):
            while not world.rescan.rounds:
                await asyncio.sleep(0.01)

    async def fenced(_: Break | None) -> None:
        raise Fenced("a newer operator")

    ending = Rescan(world.log, world.checkpoints, world.trust, fenced, Pace(1e9, 0.001))
    async with rescanning(ending, SystemClock()):
        await asyncio.sleep(0.2)
    async with rescanning(None, SystemClock()):
        pass
