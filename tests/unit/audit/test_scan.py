"""A scan says what ``open_entry`` says, or nothing."""

import signal
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.audit.chain import projections
from triplane.audit.entry import open_entry, prepare
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.scan import scanner
from triplane.errors import InvalidEntry

ORIGIN = "localhost/abc"
SCAN = scanner(ORIGIN)
BODY = EventBody(
    id="run.recorded/u1/1/7",
    type="run.recorded",
    stream="graph/g-1",
    actor="p-1",
    subject=EventSubject(
        kind="Task", namespace="demo", name="t.1", uid="u1", generation=3, labels=(("triplane.dev/graph", "g"),)
    ),
    data={"count": 1, "list": [1, "zwei", None, True], "nested": {"deep": -5}},
    blobs=("sha256:" + "cd" * 32,),
)


def sealed(body: EventBody, origin: str = ORIGIN) -> bytes:
    return prepare(origin, body).seal(5, "ab" * 32, "2026-01-02T03:04:05.000006Z")


def agree(octets: bytes) -> bool:
    """Whether the scan takes it; then ``open_entry`` does, with the same fields."""
    found = SCAN(octets)
    if found is None:
        return False
    opened = open_entry(octets)
    entry = opened.entry
    prev, seq, time, texts, body = found
    assert entry["origin"] == ORIGIN
    assert (prev.decode(), int(seq), time.decode()) == (entry["prev"], entry["seq"], entry["time"])
    assert tuple(text.decode() for text in texts) == projections(entry)
    assert body == opened.body_sha256
    return True


KEYS = st.from_regex(r"[a-z][A-Za-z0-9]{0,5}", fullmatch=True)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)


@given(data=DATA)
def test_every_valid_data_is_taken(data: dict[str, Any]) -> None:
    assert agree(sealed(replace(BODY, data=data)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"data": {}}, id="no data"),
        pytest.param({"blobs": ()}, id="no blobs"),
        pytest.param({"blobs": ("sha256:" + "cd" * 32,) * 64}, id="64 blobs"),
        pytest.param({"stream": "system", "actor": "system"}, id="the system's stream"),
        pytest.param({"data": {"id": '","id":"x', "type": {"id": "a.b/c/1", "origin": "o/p"}}}, id="data like a tail"),
        pytest.param({"subject": replace(BODY.subject, labels=(), namespace="", name="")}, id="an empty subject"),
    ],
)
def test_ordinary_entries_are_taken(changes: dict[str, Any]) -> None:
    assert agree(sealed(replace(BODY, **changes)))


@given(place=st.integers(0, 10_000), octet=st.integers(0, 255), data=DATA)
def test_whatever_octet_is_changed_the_scan_takes_only_what_is_an_entry(
    place: int, octet: int, data: dict[str, Any]
) -> None:
    octets = sealed(replace(BODY, data=data))
    place %= len(octets)
    agree(octets[:place] + bytes([octet]) + octets[place + 1 :])


@given(start=st.integers(0, 10_000), length=st.integers(1, 60), at=st.integers(0, 10_000), data=DATA)
def test_whatever_piece_is_moved_the_scan_takes_only_what_is_an_entry(
    start: int, length: int, at: int, data: dict[str, Any]
) -> None:
    octets = sealed(replace(BODY, data=data))
    start, at = start % len(octets), at % len(octets)
    agree(octets[:at] + octets[start : start + length] + octets[at:])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"count":1', b'"count":-0', id="minus zero"),
        pytest.param(b'"count":1', b'"count":1.0', id="a float"),
        pytest.param(b'"count":1', b'"count":9007199254740993', id="an integer over 2^53"),
        pytest.param(b'"count":1', b'"count": 1', id="a space"),
        pytest.param(b'"count":1', b'"count":1,"count":1', id="a key twice"),
        pytest.param(b'"count":1,"list"', b'"list"', id="fewer fields, still an entry"),
        pytest.param(b'"count":1', b'"zzz":1', id="keys out of order"),
        pytest.param(b'"count":1', b'"Count":1', id="a key with a capital"),
        pytest.param(b'"zwei"', b'"\\u007a"', id="a needless escape"),
        pytest.param(b'"deep":-5', b'"deep":-5,', id="a comma too many"),
        pytest.param(b'[["triplane.dev/graph","g"]]', b'[["triplane.dev/graph","g"],]', id="a label list too long"),
        pytest.param(b'[["triplane.dev/graph","g"]]', b'[["other/graph","g"]]', id="a label of others"),
        pytest.param(b'[["triplane.dev/graph","g"]]', b'[[["x"],"g"]]', id="labels that are no pairs"),
        pytest.param(b'"id":"run.recorded/', b'"id":"run.started/', id="an id of another type"),
        pytest.param(ORIGIN.encode(), b"localhost/abd", id="another origin"),
        pytest.param(b'"seq":5', b'"seq":05', id="a number with a leading zero"),
        pytest.param(b'"v":1}', b'"v":1} ', id="something behind it"),
        pytest.param(b'"v":1}', b'"v":2}', id="another version"),
    ],
)
def test_a_scan_refuses_what_open_entry_refuses(old: bytes, new: bytes) -> None:
    octets = sealed(BODY)
    assert old in octets
    changed = octets.replace(old, new, 1)
    try:
        valid = open_entry(changed).entry["origin"] == ORIGIN
    except InvalidEntry:
        valid = False
    assert agree(changed) is valid


def test_an_entry_of_many_long_numbers_holds_nobody_up() -> None:
    """An expression that may split a run of digits tries every way to do so: 2^14 for each of these numbers."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the scan used 5 seconds of processor time")

    octets = sealed(replace(BODY, data={"a": [10**14] * 500, "b": "\n"}))
    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5.0)
    try:
        assert agree(octets)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
