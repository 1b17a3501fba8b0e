"""The notary: what it signs, what it refuses to, and how it goes on after a crash."""

import asyncio
from dataclasses import replace

import pytest
from tests.contract.test_event_log import body
from tests.unit.controllers.notary_world import NotaryWorld, size_of

from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.notary import MemoryAnchor, MemoryLedger, MemoryNotaryKeys
from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.merkle import Node, leaf_hash, subtree_root
from triplane.audit.model import EventFilter
from triplane.audit.note import parse_note
from triplane.domain.continuity import Standing, parse_accepted
from triplane.errors import Contradicted, Corrupt, Fenced, Unavailable


@pytest.fixture
def world() -> NotaryWorld:
    return NotaryWorld.in_memory()


async def root_of(world: NotaryWorld) -> bytes:
    return subtree_root([leaf_hash(item.octets) for item in await world.log.query(limit=10_000)])


async def test_what_is_signed_is_the_tree_of_the_octets(world: NotaryWorld) -> None:
    await world.grow(700)
    signed = await world.signed()
    assert (signed.origin, signed.size, signed.root) == (world.log.origin, 700, await root_of(world))
    assert await world.published() == signed


async def test_it_signs_again_only_when_the_log_has_moved(world: NotaryWorld) -> None:
    notary = await world.begun()
    assert await notary.sign()
    for _ in range(3):
        assert not await notary.sign()
    await world.grow(10)
    assert await notary.sign()
    assert [size for size, _ in await world.store.published()] == [2, 10]


async def test_subtrees_of_full_tiles_are_kept(world: NotaryWorld) -> None:
    await world.grow(600)
    kept: list[Node] = []

    class Keeping(MemoryCheckpointStore):
        async def keep(self, hashes):  # type: ignore[no-untyped-def]
            kept.extend(node for node, _ in hashes)
            await super().keep(hashes)

    assert isinstance(world.log, MemoryEventLog)
    world.store = Keeping(world.log.shared)
    await world.signed()
    assert kept == [Node(8, 0), Node(8, 1)]


@pytest.mark.parametrize(
    "lost", [False, True], ids=["its record is there", "its record is lost, the published are not"]
)
async def test_a_restarted_notary_goes_on_without_reading_history_again(world: NotaryWorld, lost: bool) -> None:
    await world.grow(300)
    await world.signed()
    if lost:
        world.ledger = MemoryLedger()
    await world.grow(310)
    read: list[int] = []

    class Counting(MemoryEventLog):
        async def query(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            found = await super().query(*args, **kwargs)
            read.extend(item.seq for item in found)
            return found

    assert isinstance(world.log, MemoryEventLog)
    world.log = Counting(world.log.shared)
    signed = await world.signed()
    assert read == list(range(300, 310)), "only the new ones"
    assert signed.root == await root_of(world)


async def test_where_kept_hashes_are_lost_everything_is_read_again(world: NotaryWorld) -> None:
    class Forgetful(MemoryCheckpointStore):
        async def hashes(self, nodes):  # type: ignore[no-untyped-def]
            raise Corrupt("hashes are missing")

    await world.grow(300)
    await world.signed()
    await world.grow(310)
    published = await world.store.published()
    assert isinstance(world.log, MemoryEventLog)
    world.store = Forgetful(world.log.shared)
    for _, note in published:
        await world.store.publish(note)
    signed = await world.signed()
    assert (signed.size, signed.root) == (310, await root_of(world))


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", ["keep", "replace", "publish"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_notary_that_dies_between_two_steps_tells_one_story(world: NotaryWorld, step: str, when: str) -> None:
    await world.grow(300)
    first = await world.signed()
    await world.grow(600)
    target = world.ledger if step == "replace" else world.store
    whole = getattr(target, step)

    def die_locally(*args: object) -> None:
        if when == "after":
            whole(*args)
        raise Crash

    async def die(*args: object) -> None:
        if when == "after":
            await whole(*args)
        raise Crash

    setattr(target, step, die_locally if step == "replace" else die)
    notary = await world.begun() if step != "publish" else None
    with pytest.raises(Crash):
        await (notary.sign() if notary else world.signed())
    setattr(target, step, whole)
    await world.grow(700)
    signed = await world.signed()
    assert (signed.size, signed.root) == (700, await root_of(world))
    assert next(size for size, _ in await world.store.published()) == first.size
    assert (await world.published()) == signed


async def test_of_two_notaries_one_is_fenced(world: NotaryWorld) -> None:
    one, two = await world.begun(), await world.begun()
    await one.sign()
    await world.grow(10)
    with pytest.raises(Fenced, match="another notary signs"):
        await two.sign()
    assert await one.sign()
    assert size_of(world.ledger.read()) == 10


async def test_a_notary_whose_operator_was_replaced_signs_no_more(world: NotaryWorld) -> None:
    notary = await world.begun()
    await notary.sign()
    await world.grow(10)
    assert isinstance(world.log, MemoryEventLog)
    await MemoryEventLog(world.log.shared).begin_epoch()
    with pytest.raises(Fenced):
        await notary.sign()
    assert size_of(world.ledger.read()) == 2


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        pytest.param({"leaf_hash": "00" * 32}, "the stored leaf hash is", id="another stored hash"),
        pytest.param({"octets": b'{"seq":7}'}, "its octets hash to", id="other octets"),
        pytest.param({"seq": 8}, "entry 7 is missing before it", id="a gap"),
    ],
)
async def test_entries_that_do_not_continue_the_log_are_not_signed(
    world: NotaryWorld, alter: dict[str, object], said: str
) -> None:
    await world.grow(5)
    notary = await world.begun()
    await notary.sign()
    await world.grow(10)
    assert isinstance(world.log, MemoryEventLog)
    rows = world.log.shared.rows
    rows[7] = (replace(rows[7][0], **alter), rows[7][1])  # type: ignore[arg-type]
    with pytest.raises(Contradicted, match=f"entry [78] .*{said}.*triplane log verify"):
        await notary.sign()
    assert size_of(world.ledger.read()) == 5


async def test_a_log_that_shrinks_under_the_notary_halts_it(world: NotaryWorld) -> None:
    await world.grow(10)
    notary = await world.begun()
    await notary.sign()
    assert isinstance(world.log, MemoryEventLog)
    del world.log.shared.rows[8:]
    with pytest.raises(Contradicted, match=r"had 10 entries .* has 8"):
        await notary.sign()


async def test_both_keys_sign_while_they_rotate_and_anchors_of_the_old_one_are_still_read(world: NotaryWorld) -> None:
    keys = world.keys
    assert isinstance(keys, MemoryNotaryKeys)
    await world.signed()
    for size, count in ((5, 2), (6, 1)):
        if count == 2:
            keys.rotate(b"the next key")
        else:
            keys.retire_oldest()
        await world.grow(size)
        notary = await world.begun()
        assert notary.findings[0].standing is Standing.CONTINUES
        await world.signed(notary)
        assert len(parse_note(world.ledger.read() or b"").signatures) == count
    assert (await world.published()).size == 6


async def test_run_signs_as_entries_come_and_close_signs_the_rest(world: NotaryWorld) -> None:
    notary = await world.begun()
    running = asyncio.create_task(notary.run())
    await world.grow(20)
    async with asyncio.timeout(60):
        while notary.signed is None or notary.signed.size < 20:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await world.grow(30)
    await notary.close()
    (anchor,) = world.anchors
    assert isinstance(anchor, MemoryAnchor)
    assert (notary.signed.size, size_of(anchor.note)) == (30, 30)


async def test_run_waits_for_a_store_that_is_away(world: NotaryWorld) -> None:
    notary = await world.begun()
    tries = 0
    publish = world.store.publish

    async def away(note: bytes) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the database is away")
        await publish(note)

    world.store.publish = away  # type: ignore[method-assign]
    running = asyncio.create_task(notary.run())
    await world.grow(20)
    async with asyncio.timeout(60):
        while await world.store.latest() is None or (await world.published()).size < 20:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_run_ends_with_what_an_anchor_says_against_the_log(world: NotaryWorld) -> None:
    await world.grow(20)
    await world.signed()
    notary = await world.begun()
    other = NotaryWorld.in_memory()
    other.log = MemoryEventLog(MemoryLog(world.log.origin))  # the same origin and key, another story
    assert isinstance(other.log, MemoryEventLog)
    other.store = MemoryCheckpointStore(other.log.shared)
    await other.grow(20)
    await other.signed()
    (anchor,), (elsewhere,) = world.anchors, other.anchors
    assert isinstance(anchor, MemoryAnchor)
    assert isinstance(elsewhere, MemoryAnchor)
    anchor.note = elsewhere.note
    await world.grow(25)
    with pytest.raises(Contradicted, match=r"memory:anchor holds a checkpoint of 20 entries.*not the ones"):
        async with asyncio.timeout(60):
            await notary.run()


async def test_a_given_up_checkpoint_no_longer_counts(world: NotaryWorld) -> None:
    await world.grow(20)
    await world.signed()
    assert isinstance(world.log, MemoryEventLog)
    shared = world.log.shared
    restored = MemoryLog(shared.origin, shared.rows[:15], {id_: n for id_, n in shared.ids.items() if n < 15})
    world.log, world.store = MemoryEventLog(restored), MemoryCheckpointStore(restored)
    with pytest.raises(Contradicted) as refused:
        await world.begun()
    setting = str(refused.value).rpartition("TRIPLANE_ACCEPT_ROLLBACK=")[2]
    with pytest.raises(Contradicted):
        await world.begun(parse_accepted(setting.replace("+20+", "+19+")))
    await world.log.append([body(n) for n in range(100, 102)])
    await world.begun(parse_accepted(setting))
    signed = await world.signed(await world.begun(parse_accepted(setting)))
    (told,) = await world.log.query(EventFilter(types=frozenset({"checkpoint.abandoned"})))
    assert (told.seq, told.entry["data"]["size"]) == (17, 20), "the log says so, once"
    (anchor,) = world.anchors
    assert isinstance(anchor, MemoryAnchor)
    assert (signed.size, size_of(anchor.note), size_of(world.ledger.read())) == (18, 18, 18)
    await world.begun()  # and from then on nothing needs to be given up


async def test_a_record_that_was_not_signed_here_halts(world: NotaryWorld) -> None:
    await world.signed()
    assert isinstance(world.ledger, MemoryLedger)
    world.keys = MemoryNotaryKeys(b"another key")
    with pytest.raises(Contradicted, match=r"own record.*NotSigned"):
        await world.begun()


async def test_a_published_checkpoint_that_was_not_signed_here_halts(world: NotaryWorld) -> None:
    await world.grow(20)
    await world.signed()
    forged = Checkpoint(world.log.origin, 1_000_000, bytes(32))
    await world.store.publish(sign_checkpoint(forged, forged.origin, MemoryNotaryKeys(b"a thief").signers()))
    await world.grow(21)
    notary = await world.begun()
    with pytest.raises(Contradicted, match=r"published checkpoints holds what this installation did not sign"):
        await notary.sign()
