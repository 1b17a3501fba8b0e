"""The checker of histories finds each thing that can be wrong with a log, and nothing wrong with a sound one."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Attempt, Body, Entry, Epoch, History, Kind, Result, check
from triplane.audit.model import GENESIS_PREV

pytestmark = pytest.mark.faults


def body(name: str, value: str = "1") -> Body:
    return (f"resource.observed/{name}/1", value)


def chain(*bodies: Body) -> list[Entry]:
    log: list[Entry] = []
    for seq, each in enumerate(bodies):
        prev = log[-1].leaf if log else GENESIS_PREV
        log.append(Entry(seq, each, prev, f"leaf of {seq}: {each}"))
    return log


def acknowledged(entries: list[Entry], began: float, ended: float, **more: object) -> Attempt:
    receipts = tuple((entry.body[0], entry.seq, entry.leaf) for entry in entries)
    bodies = tuple(entry.body for entry in entries)
    return replace(Attempt("w", bodies, began, ended, Result.OK, receipts), **more)  # type: ignore[arg-type]


LOG = chain(body("origin"), body("a"), body("b1"), body("b2"), body("c"), body("d"))
A, B, C, D = LOG[1:2], LOG[2:4], LOG[4:5], LOG[5:6]
"""What four operations appended, behind the log's first entry."""
LOST_REPLY = Attempt("w", (C[0].body,), 3.0, 3.5, Result.INFO)
KILLED = Attempt("w", (D[0].body,), 5.0)
REFUSED = Attempt("w", (body("a", "another"),), 6.0, 6.1, Result.FAIL)
GONE = Attempt("w", (body("never"), body("never, too")), 7.0, 7.9, Result.INFO)
SOUND = History(
    (
        acknowledged(A, 1.0, 2.0),
        acknowledged(A, 6.5, 6.6),
        acknowledged(B, 2.5, 2.9),
        LOST_REPLY,
        KILLED,
        REFUSED,
        GONE,
    ),
    epochs=(Epoch("leader", 1, 0.5),),
    readings={"r": tuple((entry.seq, entry.leaf) for entry in LOG)},
)


def with_attempts(*attempts: Attempt) -> History:
    return replace(SOUND, attempts=(*SOUND.attempts, *attempts))


def renumbered(entries: list[Entry]) -> list[Entry]:
    return chain(*(entry.body for entry in entries))


def told_anew(log: list[Entry]) -> History:
    """The sound history as it would have been told of another log: places and leaf hashes are those of that one."""
    there = {entry.body: entry for entry in log}
    attempts = [
        replace(
            attempt,
            receipts=tuple((each[0], there[each].seq, there[each].leaf) for each in attempt.bodies if each in there),
        )
        if attempt.result is Result.OK
        else attempt
        for attempt in SOUND.attempts
    ]
    return replace(SOUND, attempts=tuple(attempts), readings=None)


def test_a_sound_history_has_nothing_wrong() -> None:
    assert check(SOUND, LOG, before=1) == []


def test_unknown_outcomes_may_have_come_to_nothing() -> None:
    log = renumbered(LOG[:4])
    assert check(told_anew(log), log, before=1) == []


def test_what_overlapped_may_stand_in_any_order() -> None:
    one, other = chain(body("x"), body("y"))
    later = [acknowledged([one], 1.0, 5.0), acknowledged([other], 0.5, 4.0)]
    assert check(History(tuple(later)), [one, other]) == []


def test_an_event_that_is_appended_again_alone_stands_where_it_first_came() -> None:
    assert check(with_attempts(acknowledged(B[1:], 9.0, 9.1)), LOG, before=1) == []


def swapped() -> tuple[History, list[Entry]]:
    log = renumbered([LOG[0], *B, *A, *C, *D])
    return told_anew(log), log


def lost() -> tuple[History, list[Entry]]:
    log = renumbered([LOG[0], *B, *C, *D])
    return told_anew(log), log


def half_lost() -> tuple[History, list[Entry]]:
    log = renumbered([LOG[0], *A, B[0], *C, *D])
    return told_anew(log), log


def duplicated() -> tuple[History, list[Entry]]:
    log = renumbered([*LOG, *A])
    return told_anew(renumbered(LOG)), log


def torn() -> tuple[History, list[Entry]]:
    log = chain(*(entry.body for entry in LOG), GONE.bodies[0])
    return replace(SOUND, readings=None), log


def turned() -> tuple[History, list[Entry]]:
    log = renumbered([LOG[0], *A, B[1], B[0], *C, *D])
    return told_anew(log), log


def phantom() -> tuple[History, list[Entry]]:
    return replace(SOUND, readings=None), chain(*(entry.body for entry in LOG), body("nobody's"))


def refused_but_there() -> tuple[History, list[Entry]]:
    log = chain(*(entry.body for entry in LOG), REFUSED.bodies[0])
    return replace(SOUND, readings=None), log


def wrong_receipt() -> tuple[History, list[Entry]]:
    return with_attempts(replace(acknowledged(A, 8.0, 8.1), receipts=((A[0].body[0], 9, A[0].leaf),))), LOG


def gap() -> tuple[History, list[Entry]]:
    return replace(SOUND, readings=None), [*LOG[:5], replace(LOG[5], seq=6)]


def unchained() -> tuple[History, list[Entry]]:
    return SOUND, [*LOG[:3], replace(LOG[3], prev="00" * 32), *LOG[4:]]


def appended_under_an_old_epoch() -> tuple[History, list[Entry]]:
    old = acknowledged(C, 3.6, 3.9, writer="leader", epoch=1)
    attempts = tuple(attempt for attempt in SOUND.attempts if attempt is not LOST_REPLY)
    return replace(SOUND, attempts=(*attempts, old), epochs=(*SOUND.epochs, Epoch("leader", 2, 3.0))), LOG


def skipped_by_a_reader() -> tuple[History, list[Entry]]:
    return replace(SOUND, readings={"r": tuple((entry.seq, entry.leaf) for entry in LOG if entry.seq != 3)}), LOG


def read_twice() -> tuple[History, list[Entry]]:
    seen = tuple((entry.seq, entry.leaf) for entry in LOG)
    return replace(SOUND, readings={"r": (*seen[:3], seen[2], *seen[3:])}), LOG


def read_ahead_of_the_commit() -> tuple[History, list[Entry]]:
    seen = tuple((entry.seq, entry.leaf) for entry in LOG)
    return replace(SOUND, readings={"r": (*seen, (len(LOG), "of what was never committed"))}), LOG


def the_end_not_read() -> tuple[History, list[Entry]]:
    return replace(SOUND, readings={"r": tuple((entry.seq, entry.leaf) for entry in LOG[:-1])}), LOG


@pytest.mark.parametrize(
    ("made", "kinds"),
    [
        pytest.param(lost, {Kind.LOST}, id="an acknowledged event is not there"),
        pytest.param(half_lost, {Kind.LOST}, id="half of an acknowledged append is not there"),
        pytest.param(duplicated, {Kind.DUPLICATED, Kind.MISREPORTED, Kind.REORDERED}, id="an event is there twice"),
        pytest.param(torn, {Kind.TORN}, id="half of an append of unknown outcome is there"),
        pytest.param(turned, {Kind.REORDERED}, id="the events of one append are turned round"),
        pytest.param(swapped, {Kind.REORDERED}, id="what was acknowledged before another began stands behind it"),
        pytest.param(phantom, {Kind.PHANTOM}, id="an event nobody appended"),
        pytest.param(refused_but_there, {Kind.FAILED, Kind.DUPLICATED}, id="an append that was refused is there"),
        pytest.param(wrong_receipt, {Kind.MISREPORTED}, id="a receipt names another place"),
        pytest.param(gap, {Kind.GAP}, id="a number is missing"),
        pytest.param(unchained, {Kind.BROKEN}, id="an entry does not name its predecessor"),
        pytest.param(appended_under_an_old_epoch, {Kind.UNFENCED}, id="an append under an epoch that was over"),
        pytest.param(skipped_by_a_reader, {Kind.MISREAD}, id="a reader was not given an entry"),
        pytest.param(read_twice, {Kind.MISREAD}, id="a reader was given an entry twice"),
        pytest.param(read_ahead_of_the_commit, {Kind.MISREAD}, id="a reader was given what is not there"),
        pytest.param(the_end_not_read, {Kind.MISREAD}, id="a reader was not given the end"),
    ],
)
def test_what_is_wrong_is_found(made: Callable[[], tuple[History, list[Entry]]], kinds: set[Kind]) -> None:
    history, log = made()
    assert {problem.kind for problem in check(history, log, before=1)} == kinds


def test_an_old_epoch_that_was_not_known_to_be_over_may_still_append() -> None:
    history, log = appended_under_an_old_epoch()
    late = replace(history, epochs=(*SOUND.epochs, Epoch("leader", 2, 3.7)))
    assert check(late, log, before=1) == []
