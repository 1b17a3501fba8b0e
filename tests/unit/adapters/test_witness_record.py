"""What a witness remembers, and row 20 of the attack table: racing requests never get two stories cosigned."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.unit.audit.notary import ORIGIN, Log, log_key

from triplane.adapters.sqlite import witnessrecord
from triplane.adapters.sqlite.witnessrecord import FILE, WitnessRecord
from triplane.audit.checkpoint import Checkpoint
from triplane.audit.notekey import KeyRing
from triplane.audit.witness import Accepted, Admitted, Answer, admit, judge, make_request, origin_hash
from triplane.errors import Conflict, Corrupt, InvalidInput, Unavailable

TRUE, OTHER = Log().grow(20), Log("false").grow(20)
BASE = 9
_WAIT = 60.0
PUT_BACK = "Only a copy made after its last cosignature may be put back; otherwise make a new witness"


class WithoutTransaction(WitnessRecord):
    """The protection removed: what is read may have changed when the answer is written."""

    @contextmanager
    def _alone(self, connection: sqlite3.Connection) -> Iterator[None]:
        yield


def request(log: Log, old: int, new: int) -> Admitted:
    proof = log.growth(old, new) if 0 < old < new else ()
    found = admit(make_request(old, proof, log.signed(new)), {ORIGIN: KeyRing([log_key()])})
    assert isinstance(found, Admitted)
    return found


def fork(new: int) -> Log:
    """Another story from entry 9 on."""
    log = Log()
    log.entries = TRUE.entries[:BASE]
    log.story = "fork"
    return log.grow(new)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    WitnessRecord.make(tmp_path)
    return tmp_path


def racing(kind: type[WitnessRecord], folder: Path, first: Admitted, second: Admitted) -> list[Accepted | Answer]:
    """The first is judged; before it is written down, the second comes, and has as long as it wants (half a second,
    where it is made to wait for the first)."""
    found: dict[str, Accepted | Answer] = {}
    done = threading.Event()

    def come() -> None:
        found["second"] = kind(folder).accept(second)
        done.set()

    other = threading.Thread(target=come)

    def meanwhile(asked: Admitted, latest: Checkpoint | None) -> Accepted | Answer:
        answer = judge(asked, latest)
        other.start()
        done.wait(0.5)
        return answer

    found["first"] = kind(folder, meanwhile).accept(first)
    other.join(_WAIT)
    return [found["first"], found["second"]]


RACES: dict[str, Callable[[], tuple[Admitted, Admitted]]] = {
    "two forks of one size": lambda: (request(TRUE, BASE, 12), request(fork(12), BASE, 12)),
    "two forks of two sizes": lambda: (request(fork(15), BASE, 15), request(TRUE, BASE, 12)),
    "an older one that overtakes a newer": lambda: (request(TRUE, BASE, 12), request(TRUE, BASE, 15)),
    "two first checkpoints": lambda: (request(TRUE, 0, 12), request(OTHER, 0, 12)),
}


@pytest.mark.parametrize("race", RACES)
def test_without_the_transaction_both_racers_are_accepted_and_with_it_only_the_first(race: str, folder: Path) -> None:
    """Row 20."""
    first, second = RACES[race]()
    for kind, both in ((WithoutTransaction, True), (WitnessRecord, False)):
        (folder / FILE).unlink()
        WitnessRecord.make(folder)
        if first.old_size:
            assert isinstance(WitnessRecord(folder).accept(request(TRUE, 0, BASE)), Accepted)
        answers = racing(kind, folder, first, second)
        assert isinstance(answers[0], Accepted)
        assert isinstance(answers[1], Accepted) == both
        if not both:
            assert isinstance(answers[1], Answer)
            assert (answers[1].status, answers[1].body) == (409, b"%d\n" % first.checkpoint.size)
            latest = WitnessRecord(folder).latest(origin_hash(ORIGIN))
            assert latest is not None
            assert latest.note == TRUE.signed(12) or latest.note.startswith(first.checkpoint.text)


def test_many_threads_race_and_each_size_has_one_root(folder: Path) -> None:
    """No two accepted checkpoints contradict each other, whoever comes first."""
    stories = [fork(20), TRUE]
    assert isinstance(WitnessRecord(folder).accept(request(TRUE, 0, BASE)), Accepted)
    accepted: list[Checkpoint] = []

    def climb(log: Log) -> None:
        record, size = WitnessRecord(folder), BASE
        while size < 20:
            asked = request(log, size, size + 1)
            found = record.accept(asked)
            if not isinstance(found, Accepted):
                return
            accepted.append(found.checkpoint)
            size += 1

    threads = [threading.Thread(target=climb, args=(log,)) for log in stories * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_WAIT)
    winners = [log for log in stories if all(log.head(it.size) == it for it in accepted)]
    assert accepted
    assert len(winners) == 1, "what was accepted is one story"
    assert len({it.size for it in accepted}) == len(accepted)


def test_what_was_accepted_is_there_after_reopening_and_cosignatures_only_beside_it(folder: Path) -> None:
    record = WitnessRecord(folder)
    record.accept(request(TRUE, 0, BASE))
    found = WitnessRecord(folder).latest(origin_hash(ORIGIN))
    assert found is not None
    assert (found.origin, found.note, found.cosignatures) == (ORIGIN, TRUE.signed(BASE), None)
    record.cosigned(ORIGIN, found.note, b"lines of this one\n")
    record.accept(request(TRUE, BASE, 12))
    record.cosigned(ORIGIN, found.note, b"late lines of the one before\n")
    found = record.latest(origin_hash(ORIGIN))
    assert found is not None
    assert (found.note, found.cosignatures) == (TRUE.signed(12), None)
    assert record.latest(origin_hash("another")) is None


def test_a_refusal_changes_nothing(folder: Path) -> None:
    record = WitnessRecord(folder)
    record.accept(request(TRUE, 0, 12))
    for asked in (request(OTHER, 0, 12), request(TRUE, BASE, 15)):
        assert isinstance(record.accept(asked), Answer)
    found = record.latest(origin_hash(ORIGIN))
    assert found is not None
    assert found.note == TRUE.signed(12)


def test_a_witness_that_lost_its_record_does_not_begin_anew(folder: Path) -> None:
    (folder / FILE).unlink()
    with pytest.raises(InvalidInput, match=PUT_BACK):
        WitnessRecord(folder)
    assert not (folder / FILE).exists()


def test_a_record_in_which_something_is_remembered_is_made_once(folder: Path) -> None:
    WitnessRecord(folder).accept(request(TRUE, 0, BASE))
    with pytest.raises(Conflict, match="is there already"):
        WitnessRecord.make(folder)
    assert WitnessRecord(folder).latest(origin_hash(ORIGIN)) is not None


def test_a_record_of_nothing_is_begun_again_wherever_making_it_ended(folder: Path) -> None:
    WitnessRecord.make(folder)
    (folder / FILE).write_bytes(b"")
    WitnessRecord.make(folder)
    assert isinstance(WitnessRecord(folder).accept(request(TRUE, 0, BASE)), Accepted)


def test_a_database_of_another_program_is_no_record_to_begin(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("CREATE TABLE theirs (a TEXT)")
    with pytest.raises(Conflict, match="is there already"):
        WitnessRecord.make(tmp_path)


def test_while_others_hold_the_record_nothing_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnessrecord, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="nothing was cosigned, try again"):
            WitnessRecord(folder).accept(request(TRUE, 0, BASE))
        other.execute("ROLLBACK")
    assert isinstance(WitnessRecord(folder).accept(request(TRUE, 0, BASE)), Accepted)


@pytest.mark.parametrize("octets", [b"no database at all" * 100, b""], ids=["another file", "an empty file"])
def test_a_file_that_is_no_record_is_not_used(octets: bytes, folder: Path) -> None:
    (folder / FILE).write_bytes(octets)
    with pytest.raises((Corrupt, InvalidInput), match=PUT_BACK) as raised:
        WitnessRecord(folder)
    assert "backup" not in str(raised.value), "an old one would let a fork be cosigned"
