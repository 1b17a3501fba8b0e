"""Chain verification: every alteration has one reason and the number of the first bad entry."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from triplane.audit.chain import BreakReason, ChainVerifier, StoredEntry, projections, verify
from triplane.audit.entry import Sealed, first_entries, open_entry, prepare, seal_all
from triplane.audit.merkle import CompactRange, leaf_hash
from triplane.audit.model import EventBody, EventSubject

HOST, INSTALL = "localhost", "abc"
ORIGIN = f"{HOST}/{INSTALL}"
Rows = list[StoredEntry]
LAST_TIME = "2026-01-02T00:00:00.000000Z"


def body(number: int) -> EventBody:
    return EventBody(
        id=f"resource.observed/u{number}/1",
        type="resource.observed",
        stream="system",
        actor="system",
        subject=EventSubject(kind="Task", namespace="demo", name=f"t{number}", uid=f"u{number}", generation=1),
    )


def stored(sealed: Sealed) -> StoredEntry:
    opened = open_entry(sealed.octets)
    seq = opened.entry["seq"]
    return StoredEntry(seq, sealed.octets, sealed.leaf, projections(opened.entry), (seq, opened.body_sha256))


def chain(count: int = 10, origin: str = ORIGIN, time: str = LAST_TIME) -> Rows:
    host, _, install = origin.partition("/")
    begun = first_entries(host, install, datetime(2026, 1, 1, tzinfo=UTC))
    rest = seal_all([prepare(origin, body(n)) for n in range(2, count)], 2, begun[-1].leaf.hex(), time)
    return [stored(sealed) for sealed in [*begun, *rest]]


def resealed(row: StoredEntry, *, seq: int | None = None, prev: str | None = None, number: int = 99) -> StoredEntry:
    """A well-formed entry in the place of ``row``."""
    entry = open_entry(row.octets).entry
    made = prepare(ORIGIN, body(number)).seal(
        entry["seq"] if seq is None else seq, prev or entry["prev"], entry["time"]
    )
    return stored(Sealed(made, leaf_hash(made), b""))


def flipped(octets: bytes, place: int = 40) -> bytes:
    return octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]


def at(place: int, change: Callable[[StoredEntry], StoredEntry]) -> Callable[[Rows], Rows]:
    def alter(rows: Rows) -> Rows:
        return [*rows[:place], change(rows[place]), *rows[place + 1 :]]

    return alter


def rehashed(row: StoredEntry) -> StoredEntry:
    octets = row.octets.replace(b'"generation":1', b'"generation":2')
    return replace(row, octets=octets, leaf=leaf_hash(octets))


def swapped(rows: Rows) -> Rows:
    first, second = rows[4], rows[5]
    return [*rows[:4], replace(second, seq=4), replace(first, seq=5), *rows[6:]]


def test_an_untouched_chain_verifies_and_has_the_tree_root() -> None:
    rows = chain()
    tree = CompactRange()
    for row in rows:
        tree.add(leaf_hash(row.octets))
    result = verify(rows, ORIGIN)
    assert result.ok
    assert (result.first, result.last, result.count, result.root) == (0, 9, 10, tree.root().hex())


@pytest.mark.parametrize(
    ("alter", "seq", "reason"),
    [
        pytest.param(
            at(4, lambda row: replace(row, octets=flipped(row.octets))), 4, "LeafHashMismatch", id="a bit of the octets"
        ),
        pytest.param(
            at(4, lambda row: replace(row, leaf=flipped(row.leaf, 3))),
            4,
            "LeafHashMismatch",
            id="a bit of the stored hash",
        ),
        pytest.param(
            at(4, lambda row: replace(row, projections=(*row.projections[:6], "other", *row.projections[7:]))),
            4,
            "ProjectionMismatch",
            id="a projection only",
        ),
        pytest.param(at(4, rehashed), 4, "IdIndexMismatch", id="octets and their own hash"),
        pytest.param(
            at(4, lambda row: replace(row, octets=b"{}", leaf=leaf_hash(b"{}"))),
            4,
            "Malformed",
            id="octets of no entry",
        ),
        pytest.param(lambda rows: rows[1:], 0, "EntryMissing", id="the first entry deleted"),
        pytest.param(lambda rows: [*rows[:4], *rows[5:]], 4, "EntryMissing", id="an entry in the middle deleted"),
        pytest.param(
            lambda rows: [*rows[:4], *(replace(row, seq=row.seq - 1) for row in rows[5:])],
            4,
            "SequenceMismatch",
            id="one deleted and the rest renumbered",
        ),
        pytest.param(lambda rows: [*rows[:5], *rows[4:]], 4, "EntryRepeated", id="an entry twice"),
        pytest.param(swapped, 4, "SequenceMismatch", id="two entries swapped"),
        pytest.param(at(4, resealed), 5, "PrevMismatch", id="a sibling in an entry's place"),
        pytest.param(
            at(4, lambda row: resealed(row, prev="ee" * 32)),
            4,
            "PrevMismatch",
            id="an entry that continues another chain",
        ),
        pytest.param(
            at(4, lambda row: replace(resealed(row, seq=3), seq=4)),
            4,
            "SequenceMismatch",
            id="octets that name another place",
        ),
        pytest.param(
            lambda rows: [*rows[:4], *chain(origin="localhost/other")[4:]],
            4,
            "OriginMismatch",
            id="a tail of another origin",
        ),
        pytest.param(
            lambda rows: chain(origin="localhost/other"), 0, "OriginMismatch", id="the whole log of another origin"
        ),
        pytest.param(
            at(4, lambda row: replace(row, indexed=None)), 4, "IdIndexMismatch", id="an id missing from the index"
        ),
        pytest.param(
            at(4, lambda row: replace(row, indexed=(5, row.indexed[1]))),  # type: ignore[index]
            4,
            "IdIndexMismatch",
            id="an id indexed at another place",
        ),
        pytest.param(
            at(4, lambda row: replace(row, indexed=(4, b"\0" * 32))),
            4,
            "IdIndexMismatch",
            id="an id indexed with another body",
        ),
        pytest.param(
            lambda rows: chain(time="2025-12-31T00:00:00.000000Z"), 2, "TimeBackwards", id="a clock that went back"
        ),
    ],
)
def test_every_alteration_is_found_at_the_first_bad_entry(alter: Callable[[Rows], Rows], seq: int, reason: str) -> None:
    result = verify(alter(chain()), ORIGIN)
    assert not result.ok
    assert result.root == ""
    assert result.broken is not None
    assert (result.broken.seq, result.broken.reason) == (seq, reason)
    assert str(seq) in result.broken.message


def test_an_id_that_occurs_twice_is_a_break_although_the_chain_holds() -> None:
    rows = chain(5)
    again = prepare(ORIGIN, body(3)).seal(5, rows[-1].leaf.hex(), "2026-01-03T00:00:00.000000Z")
    result = verify([*rows, stored(Sealed(again, leaf_hash(again), b""))], ORIGIN)
    assert result.broken is not None
    assert (result.broken.seq, result.broken.reason) == (5, "IdRepeated")


def test_a_missing_tail_is_seen_against_the_head() -> None:
    rows = chain()
    verifier = ChainVerifier(ORIGIN)
    assert all(verifier.feed(row) for row in rows[:7])
    verifier.close(10, rows[-1].leaf.hex(), LAST_TIME)
    assert verifier.broken is not None
    assert (verifier.broken.seq, verifier.broken.reason) == (7, "EntryMissing")


@pytest.mark.parametrize(
    ("size", "leaf", "time"),
    [
        pytest.param(10, "ab" * 32, None, id="another leaf"),
        pytest.param(9, None, None, id="fewer entries than there are"),
        pytest.param(10, None, "2099-01-01T00:00:00.000000Z", id="a later time"),
        pytest.param(10, None, "2000-01-01T00:00:00.000000Z", id="an earlier time"),
    ],
)
def test_a_head_that_does_not_fit_is_a_break(size: int, leaf: str | None, time: str | None) -> None:
    rows = chain()
    verifier = ChainVerifier(ORIGIN)
    assert all(verifier.feed(row) for row in rows)
    verifier.close(size, leaf or rows[-1].leaf.hex(), time or LAST_TIME)
    assert verifier.broken is not None
    assert verifier.broken.reason == "HeadMismatch"


def test_nothing_verified_is_not_a_success() -> None:
    result = verify([], ORIGIN)
    assert (result.count, result.broken, result.ok) == (0, None, False)


def test_the_left_edge_of_a_range_is_hashed_not_believed() -> None:
    rows = chain()
    good = ChainVerifier(ORIGIN, 5, rows[4].octets)
    assert all(good.feed(row) for row in rows[5:])
    assert good.result().ok
    altered = ChainVerifier(ORIGIN, 5, flipped(rows[4].octets))
    assert not altered.feed(rows[5])
    assert altered.broken is not None
    assert (altered.broken.seq, altered.broken.reason) == (5, "PrevMismatch")
    absent = ChainVerifier(ORIGIN, 5, None)
    assert absent.broken is not None
    assert (absent.broken.seq, absent.broken.reason) == (4, "EntryMissing")


def test_nothing_is_checked_after_the_first_break() -> None:
    rows = at(6, lambda row: replace(row, octets=b""))(at(3, lambda row: replace(row, leaf=b"\0" * 32))(chain()))
    result = verify(rows, ORIGIN)
    assert result.broken is not None
    assert (result.broken.seq, result.count) == (3, 3)


def test_every_reason_is_one_word_in_camel_case() -> None:
    assert all(reason.value[0].isupper() and reason.value.isalpha() for reason in BreakReason)
