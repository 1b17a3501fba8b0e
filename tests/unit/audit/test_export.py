"""Exports: what is written, what it is continued from, and what is not continued."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.audit.exports import (
    LOG,
    ORIGIN,
    THIEF,
    checkpoint,
    entries,
    exported,
    forged,
    place,
    reader,
    rechained,
    signed,
    trust,
    write,
)

from triplane.audit import export as subject
from triplane.audit.export import Exporter, Held, export, read_held
from triplane.audit.exported import verify_export
from triplane.audit.layout import CHECKPOINT, bundles_of, encode_bundle
from triplane.audit.tiles import tiles_of
from triplane.errors import Conflict, Corrupt, InvalidNote, NotFound


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def held(folder: Path) -> Held:
    return read_held(reader(folder), trust())


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 600])
def test_an_export_is_the_files_of_its_size_and_nothing_else(size: int, tmp_path: Path) -> None:
    found = files(exported(tmp_path, entries(size)))
    assert set(found) == {CHECKPOINT, *(it.path for it in bundles_of(size)), *(it.path for it in tiles_of(size))}
    assert verify_export(reader(tmp_path), trust()).ok


def test_the_checkpoint_is_written_last_and_no_file_twice(tmp_path: Path) -> None:
    paths = [file.path for file in export(Exporter(signed(entries(600))), entries(600))]
    assert paths[-1] == CHECKPOINT
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 1), (0, 256), (1, 2), (12, 12), (12, 200), (200, 256), (255, 256), (256, 257), (256, 512), (257, 600)],
)
def test_an_export_that_is_continued_is_the_one_made_at_once_beside_its_old_edge(
    first: int, second: int, tmp_path: Path
) -> None:
    old = files(exported(tmp_path / "log", entries(first)))
    exporter = Exporter(signed(entries(second)), held(tmp_path / "log"))
    assert exporter.next == first
    written = list(export(exporter, entries(second)[exporter.next :]))
    new = files(write(tmp_path / "log", written))
    whole = files(exported(tmp_path / "whole", entries(second)))
    assert new == old | whole
    assert {file.path for file in written} == {CHECKPOINT} | {path for path in whole if path not in old}


def test_what_an_export_that_was_broken_off_left_behind_does_no_harm(tmp_path: Path) -> None:
    exported(tmp_path, entries(200))
    begun = Exporter(signed(entries(700)), held(tmp_path))
    for octets in entries(700)[200:600]:
        write(tmp_path, begun.add(octets))
    assert verify_export(reader(tmp_path), trust()).count == 200
    write(tmp_path, export(Exporter(signed(entries(650)), held(tmp_path)), entries(650)[200:]))
    found = verify_export(reader(tmp_path), trust())
    assert (found.ok, found.count) == (True, 650)


def test_artifacts_are_found_by_digest(tmp_path: Path) -> None:
    found = verify_export(reader(exported(tmp_path, entries(12))), trust())
    assert found.artifacts == {f"sha256:{5:064x}": (5,), f"sha256:{10:064x}": (10,)}


@pytest.mark.parametrize(
    ("size", "other_from", "message"),
    [
        pytest.param(7, None, "has 12 signed entries, the log only 7: it was rolled back", id="a log rolled back"),
        pytest.param(12, 8, "12 entries have root .* it forked", id="another root of one size"),
    ],
)
def test_a_log_that_does_not_go_on_is_refused_before_anything_is_read(
    size: int, other_from: int | None, message: str, tmp_path: Path
) -> None:
    known = held(exported(tmp_path, entries(12)))
    with pytest.raises(Conflict, match=message):
        Exporter(signed(entries(size, other_from=other_from)), known)


@pytest.mark.parametrize("size", [12, 256, 300])
def test_a_fork_is_refused_at_the_first_entry_that_is_not_exported_yet(size: int, tmp_path: Path) -> None:
    known = held(exported(tmp_path, entries(size)))
    other = entries(size + 20, other_from=size - 1)
    exporter = Exporter(signed(other), known)
    with pytest.raises(Conflict, match=rf"entry {size} names .* One of the two histories was replaced; export into"):
        exporter.add(other[size])


def test_a_fork_that_hides_its_seam_is_refused_before_the_checkpoint_is_published(tmp_path: Path) -> None:
    known = held(exported(tmp_path, entries(12)))
    other = entries(20, other_from=4)
    exporter = Exporter(signed(other), known)
    seam = rechained([*entries(12), *other[12:]], 12)[12:]
    with pytest.raises(Corrupt, match=r"the checkpoint signs .* Nothing was published"):
        list(export(exporter, seam))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(lambda all_: all_[:11], "entry 11 of 12 is missing", id="the last entry missing"),
        pytest.param(lambda all_: [*all_[:4], *all_[5:]], "says it is entry 5", id="one in the middle missing"),
        pytest.param(lambda all_: [*all_, all_[-1]], "entry 12 lies beyond the 12", id="one too many"),
        pytest.param(lambda all_: [*all_[:4], all_[4], all_[4]], "says it is entry 4", id="one twice"),
        pytest.param(lambda all_: [b"{}"], "entry 0 is no entry", id="what is no entry"),
        pytest.param(lambda all_: [b"\xff"], "entry 0 is no entry", id="what is no JSON"),
        pytest.param(lambda all_: entries(12, "localhost/other"), "of localhost/other after", id="another log"),
        pytest.param(lambda all_: entries(12, other_from=11), "an entry is not what it was", id="another last entry"),
    ],
)
def test_a_broken_chain_is_not_exported(given: Callable[[list[bytes]], list[bytes]], message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        list(export(Exporter(signed(entries(12))), given(list(entries(12)))))


def spoilt_tile(folder: Path) -> None:
    place(folder, "tile/0/000.p/12", b"\0" * 32 * 12)


def spoilt_bundle(folder: Path) -> None:
    place(folder, "tile/entries/000.p/12", encode_bundle(entries(12, other_from=4)))


def missing_bundle(folder: Path) -> None:
    (folder / "tile/entries/000.p/12").unlink()


def other_history(folder: Path) -> None:
    forged(folder, entries(12, other_from=4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(spoilt_tile, "do not make the root that its checkpoint signs", id="a tile altered"),
        pytest.param(spoilt_bundle, "holds other entries than tile/0/000.p/12", id="a bundle altered"),
        pytest.param(missing_bundle, "tile/entries/000.p/12 is not there", id="a bundle missing"),
        pytest.param(other_history, "do not make the root", id="all files altered"),
    ],
)
def test_an_altered_export_is_not_continued(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoil(exported(tmp_path, entries(12)))
    with pytest.raises(Corrupt, match=rf"(?s)of 12 entries cannot be continued: .*{message}.*export into another"):
        held(tmp_path)


def test_the_left_edge_of_what_is_continued_is_hashed_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11. The last full bundle and its tile are replaced together: every tile of the edge still makes the root."""
    other = entries(256, other_from=200)
    good = files(exported(tmp_path / "log", entries(256)))
    forged(tmp_path / "log", other)
    place(tmp_path / "log", "tile/1/000.p/1", good["tile/1/000.p/1"])
    with monkeypatch.context() as weak:
        weak.setattr(subject, "verify_inclusion", lambda *_: None)
        believed = held(tmp_path / "log")
    exporter = Exporter(signed(entries(300)), believed)
    assert exporter.add(entries(300, other_from=200)[256]) == []
    with pytest.raises(Corrupt, match=r"does not end in the entry|do not make"):
        held(tmp_path / "log")


def test_an_export_of_another_log_is_not_continued(tmp_path: Path) -> None:
    exported(tmp_path, entries(12))
    place(tmp_path, CHECKPOINT, checkpoint(entries(12), THIEF))
    with pytest.raises(InvalidNote, match=f"no key pinned for {ORIGIN} has signed"):
        held(tmp_path)
    place(tmp_path, CHECKPOINT, checkpoint(entries(12), LOG, "localhost/other"))
    with pytest.raises(InvalidNote, match=r"is of '?localhost/other'?, not of"):
        held(tmp_path)


def test_a_folder_without_an_export_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        held(tmp_path)
