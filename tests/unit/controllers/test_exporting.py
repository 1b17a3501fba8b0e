"""Exporting over memory stores, a folder and HTTP: whole, continued, broken off, refused; proofs of every entry."""

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.audit.exports import Audit, flip, in_node, serving, standalone
from tests.unit.audit.notary import LOG, log_key, signer_of

from triplane.adapters.filesystem.exportfolder import ExportFolder
from triplane.adapters.http.tiledlog import TiledLog
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.entry import first_entries
from triplane.audit.layout import CHECKPOINT, File
from triplane.audit.merkle import CompactRange, leaf_hash, subtree_root
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.notekey import KeyRing
from triplane.audit.tlogproof import verify_bundle
from triplane.controllers.exporting import LogSource, StoredLog, export_log, proof_path, write_proofs
from triplane.errors import Conflict, Corrupt, InvalidInput, InvalidNote, NotFound


class World:
    """A log in memory, its checkpoints, and a folder to export to."""

    def __init__(self, folder: Path, story: str = "true", install: str = "abc") -> None:
        self.shared = MemoryLog(f"localhost/{install}")
        self.shared.extend(first_entries("localhost", install, datetime(2026, 1, 1, tzinfo=UTC)))
        self.log = MemoryEventLog(self.shared)
        self.store = MemoryCheckpointStore(self.shared)
        self.source: LogSource = StoredLog(self.log, self.store)
        self.folder = folder
        self.story = story
        self.key = log_key(name=self.log.origin)
        self.trust = CheckpointTrust(self.log.origin, KeyRing([self.key]))

    async def sign(self, size: int) -> bytes:
        """Append until the log has this size, and sign it."""
        have, _ = await self.log.head()
        for number in range(have, size):
            subject = EventSubject("Task", "team", f"t{number}", f"u{number}")
            await self.log.append(
                [EventBody(f"task.created/{self.story}/{number}", "task.created", "system", "system", subject)]
            )
        octets = await self.octets()
        head = Checkpoint(self.log.origin, size, subtree_root([leaf_hash(item) for item in octets]))
        note = sign_checkpoint(head, self.log.origin, [LOG])
        await self.store.publish(note)
        return note

    async def octets(self) -> list[bytes]:
        return [item.octets for item in await self.log.query(limit=10_000)]

    def audit(self, *earlier: Path) -> Audit:
        return Audit(self.folder, [], [str(self.key)], list(earlier))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "log")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_an_export_is_continued_from_where_it_ended(world: World, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(await world.sign(5))
    for size, first in ((5, 0), (5, 5), (300, 5), (600, 300)):
        await world.sign(size)
        with ExportFolder(world.folder) as target:
            done = await export_log(world.source, target, world.trust)
        assert (done.origin, done.first, done.size) == (world.log.origin, first, size)
        for verdict in (standalone(world.audit(kept)), in_node(world.audit(kept))):
            assert verdict.code == 0, verdict
    assert not list(world.folder.rglob("*.partial"))


async def test_over_http_the_same_files_are_written(world: World, tmp_path: Path) -> None:
    await world.sign(300)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    with serving(world.folder) as url, ExportFolder(tmp_path / "copy") as target:
        async with TiledLog(url) as source:
            done = await export_log(source, target, world.trust)
            assert (done.first, done.size) == (0, 300)
            await world.sign(301)
            assert (await export_log(source, target, world.trust)).first == 300, "nothing new is served yet"
    assert files(tmp_path / "copy") == files(world.folder)


async def test_from_a_server_that_lacks_or_alters_a_file_nothing_is_published(world: World, tmp_path: Path) -> None:
    await world.sign(300)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    altered = world.folder / "tile/entries/001.p/44"
    octets = altered.read_bytes()
    for damage, error in (
        (lambda: altered.write_bytes(octets[:-1]), Corrupt),
        (lambda: altered.write_bytes(octets.replace(b'"t299"', b'"t298"')), Corrupt),
        (altered.unlink, NotFound),
    ):
        damage()
        with serving(world.folder) as url, ExportFolder(tmp_path / "copy") as target:
            async with TiledLog(url) as source:
                with pytest.raises(error):
                    await export_log(source, target, world.trust)
        assert not (tmp_path / "copy" / CHECKPOINT).exists()


async def test_a_fork_a_rollback_and_another_log_are_refused_and_the_export_stays(world: World, tmp_path: Path) -> None:
    """Rows 7, 8, 13."""
    await world.sign(20)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    before = files(world.folder)
    for other, size, said in (
        (World(tmp_path, "false"), 20, "it forked"),
        (World(tmp_path, "false"), 30, "does not continue the export"),
        (World(tmp_path), 10, "it was rolled back"),
        (World(tmp_path, install="other"), 30, "it is of localhost/abc, the log is localhost/other"),
    ):
        await other.sign(size)
        with ExportFolder(world.folder) as target, pytest.raises((Conflict, InvalidNote)) as refused:
            await export_log(other.source, target, None)
        assert said in str(refused.value)
        assert files(world.folder) == before


@pytest.mark.parametrize("octets", [b"", b"altered"], ids=["empty", "altered"])
async def test_a_checkpoint_in_the_folder_that_is_none_is_named(world: World, octets: bytes) -> None:
    await world.sign(20)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    (world.folder / CHECKPOINT).write_bytes(octets)
    for trust in (world.trust, None):
        with ExportFolder(world.folder) as target, pytest.raises(InvalidNote) as refused:
            await export_log(world.source, target, trust)
        assert str(refused.value).startswith(f"{world.folder / CHECKPOINT}: ")
        assert "export into another, empty directory" in str(refused.value)


async def test_a_checkpoint_of_another_key_is_not_exported(world: World) -> None:
    await world.sign(5)
    thief = signer_of("a thief")
    trust = CheckpointTrust(world.log.origin, KeyRing([log_key(thief, world.log.origin)]))
    with ExportFolder(world.folder) as target, pytest.raises(InvalidNote) as refused:
        await export_log(world.source, target, trust)
    assert refused.value.reason == "NotSigned"
    assert files(world.folder) == {}


class Failing(ExportFolder):
    """The disk is full after so many files."""

    left = 0

    def write(self, file: File) -> None:
        if self.left == 0:
            raise InvalidInput("no space left")
        self.left -= 1
        super().write(file)


@pytest.mark.parametrize("left", range(8))
async def test_an_export_that_was_broken_off_anywhere_is_taken_up_again(left: int, world: World) -> None:
    await world.sign(20)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    await world.sign(600)
    with Failing(world.folder) as target, pytest.raises(InvalidInput, match="no space left"):
        target.left = left
        await export_log(world.source, target, world.trust)
    assert standalone(world.audit()).code == 0, "the export of before still stands"
    with ExportFolder(world.folder) as target:
        assert (await export_log(world.source, target, world.trust)).size == 600
    assert standalone(world.audit()).code == in_node(world.audit()).code == 0


class Watched(ExportFolder):
    """Tells the order of writing and settling."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.told: list[str] = []

    def write(self, file: File) -> None:
        self.told.append(file.path)
        super().write(file)

    def settle(self) -> None:
        self.told.append("settled")
        super().settle()


async def test_the_checkpoint_is_written_when_everything_else_is_durable(world: World) -> None:
    await world.sign(300)
    with Watched(world.folder) as target:
        await export_log(world.source, target, world.trust)
    assert target.told[-3:] == ["settled", CHECKPOINT, "settled"]
    assert CHECKPOINT not in target.told[:-2]


async def test_every_entry_gets_a_proof_that_holds_and_old_ones_are_left(world: World) -> None:
    await world.sign(270)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
        assert write_proofs(target) == 270
        before = (world.folder / proof_path(3)).read_bytes()
        assert write_proofs(target) == 0
        await world.sign(300)
        await export_log(world.source, target, world.trust)
        assert write_proofs(target) == 30
    octets = await world.octets()
    for seq in range(300):
        shown = verify_bundle((world.folder / proof_path(seq)).read_bytes(), world.trust)
        assert (shown.index, shown.octets) == (seq, octets[seq])
    assert (world.folder / "proofs/299.tlog-proof").is_file()
    assert (world.folder / proof_path(3)).read_bytes() == before


async def test_two_exports_to_one_folder_do_not_mix(world: World) -> None:
    with ExportFolder(world.folder), pytest.raises(Conflict, match="another export writes"), ExportFolder(world.folder):
        pass


async def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"), ExportFolder(tmp_path):
        pass


async def test_an_altered_export_is_not_continued(world: World) -> None:
    await world.sign(20)
    with ExportFolder(world.folder) as target:
        await export_log(world.source, target, world.trust)
    flip("tile/0/000.p/20", 5)(world.audit())
    await world.sign(30)
    with ExportFolder(world.folder) as target, pytest.raises(Corrupt, match="cannot be continued"):
        await export_log(world.source, target, world.trust)


class Long(LogSource):
    """A log of so many entries that is nowhere: each is made when it is asked for."""

    def __init__(self, size: int) -> None:
        tree = CompactRange()
        for octets in self._made(size):
            tree.add(leaf_hash(octets))
        self._note = sign_checkpoint(Checkpoint("localhost/long", size, tree.root()), "localhost/long", [LOG])

    def _made(self, size: int) -> Iterator[bytes]:
        prev = "0" * 64
        for seq in range(size):
            octets = b'{"origin":"localhost/long","prev":"%b","seq":%d}' % (prev.encode(), seq)
            prev = leaf_hash(octets).hex()
            yield octets

    async def checkpoint(self) -> bytes:
        return self._note

    async def entries(self, first: int, size: int) -> AsyncIterator[bytes]:
        for octets in self._made(size):
            yield octets


class Nowhere:
    """Takes files and keeps none."""

    def read(self, path: str) -> bytes:
        raise NotFound(path)

    def exists(self, path: str) -> bool:
        return False

    def write(self, file: File) -> None:
        pass

    def settle(self) -> None:
        pass


async def test_memory_does_not_grow_with_the_log() -> None:
    peaks = []
    for size in (3_000, 30_000):
        source = Long(size)
        tracemalloc.start()
        try:
            assert (await export_log(source, Nowhere(), None)).size == size
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000, peaks


async def test_a_log_that_was_never_signed_is_not_exported(world: World) -> None:
    with ExportFolder(world.folder) as target, pytest.raises(NotFound, match="no checkpoint yet"):
        await export_log(world.source, target, world.trust)
    assert files(world.folder) == {}
