"""The entry format: one spelling per entry, equal to RFC 8785, and every limit refused by path."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from triplane.audit.entry import (
    MAX_DATA_OCTETS,
    MAX_DEPTH,
    MAX_ENTRY_OCTETS,
    MAX_INTEGER,
    body_of,
    encode_data,
    event_id,
    first_entries,
    format_time,
    open_entry,
    parse,
    prepare,
    seal_all,
)
from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV, EventBody, EventSubject
from triplane.errors import InvalidEntry

ORIGIN = "localhost/0123456789abcdef"
TIME = "2026-01-02T03:04:05.000006Z"

keys = st.from_regex(r"[a-z][A-Za-z0-9]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-MAX_INTEGER, MAX_INTEGER), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
datas = st.dictionaries(keys, values, max_size=6)
uids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
labels = st.dictionaries(
    st.from_regex(r"triplane\.dev/[a-z][a-z-]{0,10}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{0,12}", fullmatch=True),
    max_size=4,
)


@st.composite
def bodies(draw: st.DrawFn) -> EventBody:
    uid = draw(uids)
    return EventBody(
        id=event_id("resource.observed", uid, draw(st.integers(0, 10**6))),
        type="resource.observed",
        stream=draw(st.sampled_from(["system", "graph/abc"])),
        actor=draw(uids),
        subject=EventSubject(
            kind=draw(st.from_regex(r"[A-Z][A-Za-z0-9]{0,10}", fullmatch=True)),
            namespace=draw(st.from_regex(r"[a-z0-9-]{0,10}", fullmatch=True)),
            name=draw(st.from_regex(r"[a-z0-9.-]{0,10}", fullmatch=True)),
            uid=uid,
            generation=draw(st.integers(0, MAX_INTEGER)),
            labels=tuple(sorted(draw(labels).items())),
        ),
        data=draw(datas),
        blobs=tuple(draw(st.lists(st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True), max_size=3))),
    )


def body(**changes: Any) -> EventBody:
    values: dict[str, Any] = {
        "id": "resource.observed/u1/1",
        "type": "resource.observed",
        "stream": "system",
        "actor": "system",
        "subject": EventSubject(kind="Task", namespace="demo", name="t", uid="u1", generation=1),
        "data": {"specDigest": "x"},
    }
    return EventBody(**{**values, **changes})


def sealed(made: EventBody, seq: int = 7, prev: str = "ab" * 32) -> bytes:
    return prepare(ORIGIN, made).seal(seq, prev, TIME)


def document(made: EventBody) -> dict[str, Any]:
    """The body as a plain object, written down independently of the encoder."""
    subject = made.subject
    return {
        "v": 1,
        "origin": ORIGIN,
        "id": made.id,
        "stream": made.stream,
        "type": made.type,
        "actor": made.actor,
        "subject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
            "generation": subject.generation,
            "labels": [list(pair) for pair in subject.labels],
        },
        "data": made.data,
        "blobs": list(made.blobs),
    }


@given(bodies(), st.integers(0, MAX_INTEGER))
def test_entries_are_exactly_their_rfc_8785_form(made: EventBody, seq: int) -> None:
    expected = document(made) | {"seq": seq, "prev": "ab" * 32, "time": TIME}
    octets = sealed(made, seq)
    assert octets == rfc8785.dumps(expected)
    assert prepare(ORIGIN, made).body_sha256 == sha256(rfc8785.dumps(document(made))).digest()


@given(bodies())
def test_what_was_sealed_is_read_back(made: EventBody) -> None:
    opened = open_entry(sealed(made))
    assert body_of(opened.entry) == made
    assert opened.body_sha256 == prepare(ORIGIN, made).body_sha256


@given(datas)
def test_data_is_exactly_its_rfc_8785_form(data: dict[str, Any]) -> None:
    if len(rfc8785.dumps(data)) <= MAX_DATA_OCTETS:
        assert encode_data(data).encode() == rfc8785.dumps(data)


def test_without_the_key_limit_the_encoder_would_differ() -> None:
    """Why keys are limited: orjson sorts by code point, RFC 8785 by UTF-16 code unit."""
    tricky = {"\ue000": 1, "😀": 2}
    assert orjson.dumps(tricky, option=orjson.OPT_SORT_KEYS) != rfc8785.dumps(tricky)
    with pytest.raises(InvalidEntry, match=r"^data: key"):
        encode_data(tricky)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param({"a": -0.0}, "data.a: -0.0 is a float", id="negative zero as a float"),
        pytest.param({"a": 1e-7}, "data.a: 1e-07 is a float", id="1e-7"),
        pytest.param({"a": 1.0}, "data.a: 1.0 is a float", id="a whole float"),
        pytest.param({"a": math.nan}, "data.a: nan is a float", id="NaN"),
        pytest.param({"a": math.inf}, "data.a: inf is a float", id="infinity"),
        pytest.param({"a": 2**53}, "data.a: 9007199254740992 is outside", id="2^53"),
        pytest.param({"a": -(2**53)}, "data.a: -9007199254740992 is outside", id="-2^53"),
        pytest.param({"a": {"b": [0, "x\0"]}}, "data.a.b[1]: contains NUL", id="a NUL"),
        pytest.param({"a": "\udc00"}, "data.a: contains a lone surrogate", id="a lone surrogate"),
        pytest.param({"a": {"é": 1}}, "data.a: key 'é'", id="a key outside ASCII"),
        pytest.param({"": 1}, "data: key ''", id="an empty key"),
        pytest.param({"A": 1}, "data: key 'A'", id="an upper-case key"),
        pytest.param({"a_b": 1}, "data: key 'a_b'", id="a key with an underscore"),
        pytest.param({1: 1}, "data: key 1", id="a number as key"),
        pytest.param({"a": b"x"}, "data.a: bytes is not JSON", id="octets"),
        pytest.param({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "data.a: datetime is not JSON", id="a datetime"),
        pytest.param({"a": {1, 2}}, "data.a: set is not JSON", id="a set"),
        pytest.param({"a": "x" * MAX_DATA_OCTETS}, "data: takes", id="data over the cap"),
        pytest.param([], "data: must be an object", id="an array as data"),
    ],
)
def test_data_outside_the_format_is_refused_by_path(data: Any, says: str) -> None:
    with pytest.raises(InvalidEntry, match=f"^{re.escape(says)}"):
        prepare(ORIGIN, body(data=data))


def test_data_may_be_nested_to_the_limit_and_no_deeper() -> None:
    def nested(depth: int) -> dict[str, Any]:
        return {"a": nested(depth - 1)} if depth > 1 else {}

    prepare(ORIGIN, body(data=nested(MAX_DEPTH)))
    with pytest.raises(InvalidEntry, match="nested deeper than 16"):
        prepare(ORIGIN, body(data=nested(MAX_DEPTH + 1)))


def test_data_may_be_as_large_as_the_cap_and_no_larger() -> None:
    frame = len('{"a":""}')
    prepare(ORIGIN, body(data={"a": "x" * (MAX_DATA_OCTETS - frame)}))
    with pytest.raises(InvalidEntry, match="over 16384"):
        prepare(ORIGIN, body(data={"a": "x" * (MAX_DATA_OCTETS - frame + 1)}))


def test_the_largest_body_still_fits_an_entry() -> None:
    """No body within the limits of its parts exceeds 65,535 octets; the whole is checked all the same."""
    labels = tuple((f"triplane.dev/{number:062}", "v" * 63) for number in range(250))
    subject = EventSubject(kind="Task", namespace="n" * 253, name="x" * 253, uid="u" * 128, labels=labels)
    big = body(subject=subject, data={"a": "x" * 16_000}, blobs=("sha256:" + "ab" * 32,) * 64)
    octets = sealed(big, MAX_INTEGER)
    assert 55_000 < len(octets) <= MAX_ENTRY_OCTETS
    more = EventSubject(
        kind="Task",
        namespace="",
        name="",
        uid="u",
        labels=tuple((f"triplane.dev/{n:062}", "v" * 63) for n in range(400)),
    )
    with pytest.raises(InvalidEntry, match="over 65535"):
        prepare(ORIGIN, body(subject=more, data={"a": "x" * 16_000}))


def subject(**changes: Any) -> EventSubject:
    return EventSubject(**({"kind": "Task", "namespace": "demo", "name": "t", "uid": "u1", "generation": 1} | changes))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        pytest.param({"type": "resource", "id": "resource/u1/1"}, "type", id="a type of one word"),
        pytest.param({"id": "resource.observed/u1"}, "id", id="an id without n"),
        pytest.param({"id": "resource.observed/u1/01"}, "id", id="an n with a leading zero"),
        pytest.param({"id": "resource.observed/u1/1/a b"}, "id", id="a key with a space"),
        pytest.param({"id": "resource.observed/ü/1"}, "id", id="an id outside ASCII"),
        pytest.param({"id": "resource.observed/u1/1/" + "k" * 200}, "id", id="an id over 200"),
        pytest.param({"id": "resource.observed/u1/1\n"}, "id", id="an id with a line end"),
        pytest.param({"actor": "alice@example.org"}, "actor", id="an e-mail address as actor"),
        pytest.param({"actor": ""}, "actor", id="no actor"),
        pytest.param({"stream": "graph/"}, "stream", id="a stream of no graph"),
        pytest.param({"stream": None}, "stream", id="no stream"),
        pytest.param({"subject": subject(kind="task")}, "subject.kind", id="a lower-case kind"),
        pytest.param({"subject": subject(namespace="Demo")}, "subject.namespace", id="an upper-case namespace"),
        pytest.param({"subject": subject(name='a"b')}, "subject.name", id="a name with a quotation mark"),
        pytest.param({"subject": subject(name="a\\b")}, "subject.name", id="a name with a backslash"),
        pytest.param({"subject": subject(uid="")}, "subject.uid", id="no uid"),
        pytest.param({"subject": subject(generation=-1)}, "subject.generation", id="a negative generation"),
        pytest.param({"subject": subject(generation=True)}, "subject.generation", id="a boolean as generation"),
        pytest.param({"subject": subject(api_version="V1")}, "subject.apiVersion", id="an upper-case version"),
        pytest.param({"subject": subject(labels=(("app", "x"),))}, "subject.labels", id="a foreign label"),
        pytest.param(
            {"subject": subject(labels=(("triplane.dev/b", ""), ("triplane.dev/a", "")))},
            "subject.labels",
            id="unsorted labels",
        ),
        pytest.param(
            {"subject": subject(labels=(("triplane.dev/a", "1"), ("triplane.dev/a", "2")))},
            "subject.labels",
            id="a label twice",
        ),
        pytest.param({"blobs": ("sha256:" + "0" * 63,)}, "blobs[0]", id="a short digest"),
        pytest.param({"blobs": ("sha256:" + "0" * 64, "md5:0")}, "blobs[1]", id="another algorithm"),
        pytest.param({"blobs": ("sha256:" + "0" * 64,) * 65}, "blobs", id="65 blobs"),
    ],
)
def test_a_body_outside_the_format_is_refused_by_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidEntry, match=f"^{re.escape(path)}: "):
        prepare(ORIGIN, body(**changes))


def test_an_origin_outside_the_format_is_refused() -> None:
    with pytest.raises(InvalidEntry, match=r"^origin: "):
        prepare("localhost", body())


VALID = sealed(body(data={"a": 1, "b": "x"}))


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        pytest.param(VALID.replace(b'"a":1', b'"a":1,"a":1'), "the key 'a' occurs twice", id="a duplicate key"),
        pytest.param(VALID.replace(b'"seq":7', b'"seq":7,"seq":7'), "the key 'seq' occurs twice", id="seq twice"),
        pytest.param(VALID.replace(b'"a":1', b'"a": 1'), "canonical", id="white space"),
        pytest.param(VALID + b"\n", "canonical", id="a line end"),
        pytest.param(VALID.replace(b'"a":1,"b":"x"', b'"b":"x","a":1'), "canonical", id="keys out of order"),
        pytest.param(VALID.replace(b'"b":"x"', b'"b":"\\u0078"'), "canonical", id="a needless escape"),
        pytest.param(VALID.replace(b'"a":1', b'"a":-0'), "canonical", id="negative zero"),
        pytest.param(VALID.replace(b'"a":1', b'"a":1.0'), "is a float", id="a float"),
        pytest.param(VALID.replace(b'"a":1', b'"a":1e-7'), "is a float", id="1e-7 in the octets"),
        pytest.param(VALID.replace(b'"a":1', b'"a":9007199254740993'), "outside", id="2^53+1 in the octets"),
        pytest.param(VALID.replace(b'"a":1', b'"a":NaN'), "not JSON", id="NaN in the octets"),
        pytest.param(VALID.replace(b'"x"', b'"\\u0000"'), "contains NUL", id="NUL in the octets"),
        pytest.param(VALID.replace(b'"x"', b'"\\ud800"'), "not JSON", id="a lone surrogate in the octets"),
        pytest.param(VALID.replace(b'"x"', b'"\xff"'), "not JSON", id="octets that are not UTF-8"),
        pytest.param(VALID[:-1], "not JSON", id="a cut entry"),
        pytest.param(b"[]", "must have exactly the keys", id="an array"),
        pytest.param(b"{}", "must have exactly the keys", id="an empty object"),
        pytest.param(VALID[:-1] + b',"x":1}', "must have exactly the keys", id="an extra member"),
        pytest.param(VALID.replace(b'"v":1', b'"v":2'), "v: 2 is not 1", id="an unknown version"),
        pytest.param(VALID.replace(b'"v":1', b'"v":true'), "v: True is not 1", id="true as version"),
        pytest.param(VALID.replace(b'"seq":7', b'"seq":-1'), "seq: -1", id="a negative seq"),
        pytest.param(VALID.replace(b"abab", b"ABAB", 1), "prev: ", id="an upper-case prev"),
        pytest.param(VALID.replace(b".000006Z", b".000006+00:00"), "time: ", id="a time without Z"),
        pytest.param(VALID.replace(b".000006Z", b".0Z"), "time: ", id="a time with one digit"),
        pytest.param(VALID.replace(b'"labels":[]', b'"labels":[["triplane.dev/a"]]'), "labels", id="a label of one"),
        pytest.param(VALID.replace(b'"labels":[]', b'"labels":{}'), "canonical|labels", id="labels as an object"),
        pytest.param(VALID.replace(b'"blobs":[]', b'"blobs":{}'), "blobs: must be an array", id="blobs as an object"),
        pytest.param(VALID.replace(b'"uid":"u1"', b'"uid":"u1","x":1'), "subject: must have", id="a subject with more"),
        pytest.param(b"x" * (MAX_ENTRY_OCTETS + 1), "over 65535", id="too many octets"),
    ],
)
def test_octets_that_are_not_the_one_spelling_are_refused(octets: bytes, says: str) -> None:
    assert octets != VALID
    with pytest.raises(InvalidEntry, match=says):
        parse(octets)


@given(st.integers(0, len(VALID) * 8 - 1))
def test_no_flipped_bit_leaves_octets_that_read_the_same(bit: int) -> None:
    flipped = bytearray(VALID)
    flipped[bit // 8] ^= 1 << bit % 8
    assert leaf_hash(bytes(flipped)) != leaf_hash(VALID)
    try:
        entry = parse(bytes(flipped))
    except InvalidEntry:
        return
    assert entry != parse(VALID)


def test_ids_are_built_and_checked() -> None:
    assert event_id("run.recorded", "u", 2, "7") == "run.recorded/u/2/7"
    assert event_id("task.placed", "u", 0) == "task.placed/u/0"
    for bad in (("Run.recorded", "u", 1, None), ("run.recorded", "", 1, None), ("run.recorded", "u", -1, None)):
        with pytest.raises(InvalidEntry):
            event_id(*bad)


def test_times_are_utc_with_six_digits() -> None:
    moment = datetime(2026, 1, 2, 4, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == TIME
    assert format_time(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"


def test_entries_are_chained_by_leaf_hash() -> None:
    prepared = [prepare(ORIGIN, body(id=f"resource.observed/u1/{n}")) for n in range(3)]
    chain = seal_all(prepared, 5, "cd" * 32, TIME)
    parsed = [parse(entry.octets) for entry in chain]
    assert [entry["seq"] for entry in parsed] == [5, 6, 7]
    assert [entry["prev"] for entry in parsed] == ["cd" * 32, chain[0].leaf.hex(), chain[1].leaf.hex()]
    assert all(entry.leaf == leaf_hash(entry.octets) for entry in chain)


def test_a_log_begins_with_its_origin_and_the_principal_system() -> None:
    first, second = (
        parse(entry.octets) for entry in first_entries("localhost", "abc", datetime(2026, 1, 1, tzinfo=UTC))
    )
    assert (first["id"], first["prev"], first["origin"]) == ("origin.created/abc/0", GENESIS_PREV, "localhost/abc")
    assert second["id"] == "principal.created/system/0"
