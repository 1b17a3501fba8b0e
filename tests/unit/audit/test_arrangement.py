"""Batches: which bodies are new, and what each call is told."""

from triplane.audit.arrangement import Known, arrange
from triplane.audit.entry import Prepared, prepare
from triplane.audit.model import EventBody, EventSubject, Receipt
from triplane.errors import IdReused


def prepared(number: int, name: str = "x") -> Prepared:
    subject = EventSubject(kind="Task", namespace="", name=name, uid=f"u{number}")
    made = EventBody(f"resource.observed/u{number}/1", "resource.observed", "system", "system", subject)
    return prepare("localhost/abc", made)


def receipts(count: int, first: int = 100) -> list[Receipt]:
    return [Receipt(f"fresh-{n}", first + n, "", "") for n in range(count)]


def test_new_bodies_keep_their_order_over_all_calls() -> None:
    arrangement = arrange([[prepared(1), prepared(2)], [prepared(3)]], {})
    assert [body.id for body in arrangement.fresh] == [prepared(n).id for n in (1, 2, 3)]
    assert arrangement.outcomes(receipts(3)) == [receipts(3)[:2], receipts(3)[2:]]


def test_a_recorded_body_gets_its_first_receipt_and_is_not_appended() -> None:
    first = Receipt(prepared(1).id, 7, "aa", "t")
    arrangement = arrange([[prepared(1), prepared(2)]], {first.id: Known(first, prepared(1).body_sha256)})
    assert [body.id for body in arrangement.fresh] == [prepared(2).id]
    assert arrangement.outcomes(receipts(1)) == [[first, receipts(1)[0]]]


def test_one_new_body_in_several_calls_is_appended_once() -> None:
    arrangement = arrange([[prepared(1)], [prepared(1)], [prepared(2), prepared(1)]], {})
    one, two = receipts(2)
    assert len(arrangement.fresh) == 2
    assert arrangement.outcomes([one, two]) == [[one], [one], [two, one]]


def test_a_call_with_a_conflict_appends_nothing_and_leaves_the_others_alone() -> None:
    known = {prepared(9).id: Known(Receipt(prepared(9).id, 3, "", ""), b"another body")}
    arrangement = arrange([[prepared(1)], [prepared(2), prepared(9)], [prepared(2, "y")]], known)
    assert [body.body_sha256 for body in arrangement.fresh] == [prepared(1).body_sha256, prepared(2, "y").body_sha256]
    first, refused, last = arrangement.outcomes(receipts(2))
    assert first == receipts(2)[:1]
    assert isinstance(refused, IdReused)
    assert "at 3 with another body" in str(refused)
    assert last == receipts(2)[1:]


def test_two_bodies_of_one_id_in_a_batch_are_a_conflict_for_the_later_call() -> None:
    arrangement = arrange([[prepared(1)], [prepared(1, "y")]], {})
    assert len(arrangement.fresh) == 1
    assert isinstance(arrangement.answers[1], IdReused)
