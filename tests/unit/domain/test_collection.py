"""What may be collected."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.domain.collection import (
    LEAST_GRACE,
    Kept,
    Marks,
    Rules,
    StoredBlob,
    check_holder,
    digests_in,
    digests_named,
    kept_because,
    octets_of,
    plan,
    references_of,
)
from triplane.domain.events import blob_erased, blob_quarantined, blobs_collected, principal_created
from triplane.errors import InvalidInput

BEFORE = datetime(2026, 1, 2, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
OLD = StoredBlob(DIGEST, 10, BEFORE - timedelta(seconds=1))
NOTHING = Marks(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("blob", "marks", "expected"),
    [
        pytest.param(OLD, NOTHING, None, id="old, unnamed and not held: it may go"),
        pytest.param(replace(OLD, stored_at=BEFORE), NOTHING, Kept.YOUNG, id="stored at the limit is young"),
        pytest.param(OLD, Marks(frozenset({octets_of(DIGEST)}), frozenset()), Kept.REFERENCED, id="named"),
        pytest.param(OLD, Marks(frozenset(), frozenset({DIGEST})), Kept.HELD, id="held"),
        pytest.param(
            OLD, Marks(frozenset({bytes(32)}), frozenset({"sha256:" + "0" * 64})), None, id="others are named and held"
        ),
    ],
)
def test_one_reason_is_enough_to_keep_a_blob(blob: StoredBlob, marks: Marks, expected: Kept | None) -> None:
    assert kept_because(blob, marks, BEFORE) is expected


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.text(max_size=5)), max_size=6))
def test_every_digest_in_a_text_is_found_wherever_it_stands(parts: list[tuple[bytes, str]]) -> None:
    text = "".join(f" {between}\nsha256:{octets.hex()}." for octets, between in parts)
    assert set(digests_in(text.encode())) == {octets for octets, _ in parts}
    assert digests_named(text) == {f"sha256:{octets.hex()}" for octets, _ in parts}


def test_what_is_longer_than_a_digest_is_none() -> None:
    assert list(digests_in(b"sha256:" + b"a" * 65)) == []
    assert list(digests_in(b"sha256:" + b"a" * 63)) == []


async def test_an_entry_needs_what_it_names_unless_it_says_that_it_went() -> None:
    log = MemoryEventLog()
    gone, altered = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    manifest = f'{{"digests":["{gone}"]}}'.encode()
    await log.append([blob_erased(gone, 1), blob_quarantined(altered, 1), blobs_collected(manifest, 1, 5)])
    await log.append([principal_created("p-1", b"{}")])
    needed = set(references_of(await log.query()))
    assert octets_of(gone) not in needed
    assert octets_of(altered) not in needed
    assert octets_of(blobs_collected(manifest, 1, 5).blobs[0]) in needed
    assert octets_of(principal_created("p-1", b"{}").blobs[0]) in needed


@pytest.mark.parametrize(
    ("condemned", "seen", "expected"),
    [
        pytest.param(100, 100, 100, id="few may go in any case"),
        pytest.param(101, 101, 0, id="everything may not"),
        pytest.param(500, 1000, 500, id="the allowed part"),
        pytest.param(501, 1000, 0, id="one more than the allowed part"),
        pytest.param(0, 0, 0, id="nothing is there"),
    ],
)
def test_a_store_whose_references_are_not_found_is_not_garbage(condemned: int, seen: int, expected: int) -> None:
    decided = plan((OLD,) * condemned, seen, Rules())
    assert len(decided.condemned) == expected
    assert bool(decided.refused) == (expected < condemned)
    if decided.refused:
        assert re.search(rf"{condemned} of {seen} blobs.*Verify the log", decided.refused)


def test_a_run_takes_at_most_so_many() -> None:
    assert len(plan((OLD,) * 50, 1000, Rules(most=7)).condemned) == 7


@pytest.mark.parametrize(
    "changes",
    [{"grace": LEAST_GRACE - timedelta(seconds=1)}, {"most": 0}, {"share": 0.0}, {"share": 1.1}, {"few": -1}],
    ids=str,
)
def test_rules_that_could_lose_work_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Rules(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("holder", ["a", "backup-2026", "0", "a" * 63])
def test_names_of_holders(holder: str) -> None:
    assert check_holder(holder) == holder
