"""The notary's record and keys in folders."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from triplane.adapters.filesystem.ledger import ANCHORED, SIGNED, FolderLedger
from triplane.adapters.filesystem.notarykeys import FOLDER, NotaryKeyFolder
from triplane.adapters.memory.notary import MemoryLedger
from triplane.audit.dsse import key_id_of
from triplane.errors import Conflict, InvalidInput, Unavailable
from triplane.ports import Ledger


@pytest.fixture(params=["memory", "folder"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return MemoryLedger() if request.param == "memory" else FolderLedger(tmp_path / "notary")


def test_a_new_record_holds_nothing(ledger: Ledger) -> None:
    assert (ledger.read(), ledger.anchored("file:/a")) == (None, None)


def test_a_record_moves_only_from_what_was_last_read(ledger: Ledger) -> None:
    ledger.replace(None, b"one")
    ledger.replace(b"one", b"two")
    for expected in (None, b"one", b"other"):
        with pytest.raises(Conflict, match="holds another checkpoint"):
            ledger.replace(expected, b"three")
    assert ledger.read() == b"two"


def test_what_each_anchor_was_given_is_remembered(ledger: Ledger) -> None:
    ledger.note_anchored("file:/a", 3)
    ledger.note_anchored("file:/b", 5)
    ledger.note_anchored("file:/a", 7)
    assert (ledger.anchored("file:/a"), ledger.anchored("file:/b")) == (7, 5)


def test_files_are_the_owners_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    ledger = FolderLedger(tmp_path / "notary")
    ledger.replace(None, b"one")
    ledger.note_anchored("file:/a", 1)
    assert sorted(path.name for path in (tmp_path / "notary").iterdir()) == [".lock", ANCHORED, SIGNED]
    for path in (tmp_path / "notary", *(tmp_path / "notary").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_crash_before_the_rename_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FolderLedger(tmp_path / "notary")
    ledger.replace(None, b"one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            ledger.replace(b"one", b"two")
    assert ledger.read() == b"one"
    ledger.replace(b"one", b"two")


def test_a_damaged_list_of_anchors_is_not_an_empty_one(tmp_path: Path) -> None:
    ledger = FolderLedger(tmp_path / "notary")
    ledger.note_anchored("file:/a", 3)
    (tmp_path / "notary" / ANCHORED).write_text("{")
    with pytest.raises(InvalidInput, match="is damaged"):
        ledger.anchored("file:/a")


def _count(folder: str, steps: int) -> None:
    ledger = FolderLedger(Path(folder))
    while steps:
        held = ledger.read()
        try:
            ledger.replace(held, b"%d" % (int(held or b"0") + 1))
        except Conflict:
            continue
        steps -= 1


def test_no_step_of_processes_that_race_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_count, args=(str(tmp_path / "notary"), 20)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert FolderLedger(tmp_path / "notary").read() == b"60"


def test_rotation_adds_a_signer_and_retiring_takes_the_old_one_away(tmp_path: Path) -> None:
    keys = NotaryKeyFolder(tmp_path)
    (first,) = keys.signers()
    second = keys.rotate()
    assert [signer.key_id for signer in keys.signers()] == [second.key_id, first.key_id]
    assert keys.retired() == []
    with pytest.raises(InvalidInput, match="is the newest"):
        keys.retire(second.key_id)
    assert keys.retire(first.key_id) == first.public_key
    assert [signer.key_id for signer in keys.signers()] == [second.key_id]
    assert keys.retired() == [first.public_key]
    with pytest.raises(InvalidInput, match=r"no key .* signs here"):
        keys.retire(first.key_id)
    assert [path.stem for path in (tmp_path / FOLDER).glob("*.pem")] == [second.key_id]


def test_a_first_rotation_leaves_two_signers(tmp_path: Path) -> None:
    keys = NotaryKeyFolder(tmp_path)
    keys.rotate()
    assert len(keys.signers()) == 2


def test_private_keys_are_the_owners_alone_and_apart_from_those_of_attestations(tmp_path: Path) -> None:
    NotaryKeyFolder(tmp_path).signers()
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    for path in (tmp_path / FOLDER).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_exchanged_public_key_is_refused(tmp_path: Path) -> None:
    keys = NotaryKeyFolder(tmp_path)
    (first,) = keys.signers()
    other = keys.rotate()
    keys.retire(first.key_id)
    (tmp_path / FOLDER / f"{first.key_id}.pub").write_bytes(other.public_key)
    with pytest.raises(InvalidInput, match=f"holds key {key_id_of(other.public_key)}"):
        keys.retired()
