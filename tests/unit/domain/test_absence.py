"""Erased, quarantined, lost, or never needed."""

from collections.abc import Sequence

import pytest

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.audit.model import EventBody, EventFilter
from triplane.domain.absence import Absence, why_absent
from triplane.domain.collection import digests_in, octets_of
from triplane.domain.events import blob_erased, blob_quarantined, blob_uid, principal_created

DOCUMENT = b'{"salt":"x"}'
NEED = principal_created("p-1", DOCUMENT)
AGAIN = principal_created("p-2", DOCUMENT)
DIGEST = NEED.blobs[0]
OTHER = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("entries", "expected", "seq"),
    [
        pytest.param([], Absence.UNKNOWN, None, id="nothing was ever said of it"),
        pytest.param([blob_erased(OTHER, 1)], Absence.UNKNOWN, None, id="another one was erased"),
        pytest.param([NEED], Absence.LOST, 2, id="needed, and nothing says where it went"),
        pytest.param([NEED, AGAIN], Absence.LOST, 2, id="needed twice: the first is named"),
        pytest.param([NEED, blob_erased(DIGEST, 1)], Absence.ERASED, 3, id="erased after it was needed"),
        pytest.param([blob_erased(DIGEST, 1)], Absence.ERASED, 2, id="erased without being needed"),
        pytest.param([NEED, blob_erased(DIGEST, 1), AGAIN], Absence.ERASED, 3, id="erased, and named once more"),
        pytest.param(
            [NEED, blob_erased(DIGEST, 1), AGAIN, blob_erased(DIGEST, 2)], Absence.ERASED, 5, id="erased twice"
        ),
        pytest.param([NEED, blob_quarantined(DIGEST, 1)], Absence.QUARANTINED, 3, id="found altered"),
        pytest.param(
            [NEED, blob_quarantined(DIGEST, 1), blob_erased(DIGEST, 1)], Absence.ERASED, 4, id="altered, then erased"
        ),
        pytest.param(
            [NEED, blob_erased(DIGEST, 1), blob_quarantined(DIGEST, 1)],
            Absence.QUARANTINED,
            4,
            id="erased, then altered",
        ),
    ],
)
async def test_the_log_tells_why_a_blob_is_not_there(
    entries: Sequence[EventBody], expected: Absence, seq: int | None
) -> None:
    log = MemoryEventLog()
    for body in entries:
        await log.append([body])
    of_blob = await log.query(EventFilter(types=frozenset({"blob.erased", "blob.quarantined"}), uid=blob_uid(DIGEST)))
    needing = [
        entry
        for entry in await log.query()
        if octets_of(DIGEST) in digests_in(entry.octets) and not entry.entry["type"].startswith("blob.")
    ]
    found = why_absent(DIGEST, of_blob, needing)
    assert (found.absence, found.seq) == (expected, seq)
    assert DIGEST in found.message


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([NEED, blob_erased(DIGEST, 1)], Absence.LOST, id="erased, put again, gone again"),
        pytest.param([blob_erased(DIGEST, 1)], Absence.LOST, id="the same, needed by no entry"),
        pytest.param(
            [NEED, blob_erased(DIGEST, 1), blob_quarantined(DIGEST, 1)], Absence.QUARANTINED, id="put again, altered"
        ),
    ],
)
async def test_what_is_owned_was_put_again_after_its_erasure(entries: Sequence[EventBody], expected: Absence) -> None:
    log = MemoryEventLog()
    await log.append(entries)
    of_blob = await log.query(EventFilter(types=frozenset({"blob.erased", "blob.quarantined"}), uid=blob_uid(DIGEST)))
    needing = await log.query(EventFilter(types=frozenset({NEED.type})))
    found = why_absent(DIGEST, of_blob, needing, owned=True)
    assert found.absence is expected
