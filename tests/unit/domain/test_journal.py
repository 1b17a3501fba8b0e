"""Records, numbers, escaping and replay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain.journal import (
    MAX_DEPTH,
    MAX_RECORDS,
    Segment,
    escape_json,
    escape_text,
    number_records,
    read_segment,
    record_position,
    replay,
)
from triplane.errors import Corrupt, InvalidInput

NOW = "2026-01-31T12:00:00+01:00"


def record(type_: str = "message", **payload: object) -> dict[str, object]:
    return {"type": type_, "occurredAt": NOW, "payload": payload}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("\x1b[2Jgone", "\\e[2Jgone", id="an escape sequence"),
        pytest.param("a\rb", "a\\rb", id="a carriage return"),
        pytest.param("\x9b31m", "\\x9b31m", id="an eight-bit control sequence"),
        pytest.param("a\x00b\x07\x7f", "a\\x00b\\x07\\x7f", id="NUL, bell and delete"),
        pytest.param("user\u202etxt.exe", "user\\u202etxt.exe", id="a bidirectional override"),
        pytest.param("a\u200bb\ufeff", "a\\u200bb\\ufeff", id="invisible characters"),
        pytest.param("two\nlines\tand a tab", "two\nlines\tand a tab", id="line feeds and tabs stay"),
        pytest.param("ünï©ode ✓ 😀", "ünï©ode ✓ 😀", id="text of any language stays"),
    ],
)
def test_what_could_steer_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert escape_text(text) == shown


def test_a_line_stays_one_line() -> None:
    assert escape_text("INFO fine\nERROR forged\u2028x", lines=True) == "INFO fine\\nERROR forged\\u2028x"


@given(st.text())
def test_escaped_text_holds_no_control_character_and_stays_escaped(text: str) -> None:
    shown = escape_text(text, lines=True)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    assert escape_text(shown, lines=True) == shown


def test_keys_are_escaped_too_and_depth_is_limited() -> None:
    assert escape_json({"a\nb": ["\x1b"]}) == {"a\\nb": ["\\e"]}
    deep: object = "x"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(InvalidInput, match="deeper"):
        escape_json(deep)


def test_records_are_numbered_within_their_segment() -> None:
    segment = number_records("s", 2, 3, [record(text="a"), record("state", state="x")])
    assert [item.id for item in segment.records] == ["2.3.1", "2.3.2"]


def test_an_observation_seen_before_or_twice_is_left_out_and_numbers_have_no_gap() -> None:
    incoming = [record("observation", observationId=name) for name in ("old", "new", "new", "newer")]
    segment = number_records("s", 1, 2, incoming, {"old"})
    assert [(item.id, item.payload["observationId"]) for item in segment.records] == [
        ("1.2.1", "new"),
        ("1.2.2", "newer"),
    ]


def test_only_observations_are_deduplicated() -> None:
    segment = number_records("s", 1, 1, [record(observationId="x"), record(observationId="x")])
    assert len(segment.records) == 2


def test_the_same_upload_gives_the_same_octets() -> None:
    one = number_records("s", 1, 1, [{"payload": {"b": 1, "a": 2.50}, "occurredAt": NOW, "type": "state"}])
    two = number_records("s", 1, 1, [{"type": "state", "occurredAt": NOW, "payload": {"a": 2.5, "b": 1}}])
    assert one.octets() == two.octets()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        pytest.param("text", "records[0] is not an object", id="no object"),
        pytest.param({**record(), "type": "gossip"}, "records[0].type", id="an unknown type"),
        pytest.param({**record(), "payload": []}, "records[0].payload", id="no payload"),
        pytest.param({**record(), "occurredAt": "2026-01-31T12:00:00"}, "occurredAt", id="a time without offset"),
        pytest.param({**record(), "more": 1}, "'more'", id="an unknown member"),
        pytest.param(record(text="x" * 600_000), "octets", id="a payload too large"),
    ],
)
def test_a_bad_record_is_refused_with_its_place(item: object, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        number_records("s", 1, 1, [item])  # type: ignore[list-item]
    assert says in str(refused.value)


def test_too_many_records_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most"):
        number_records("s", 1, 1, [record()] * (MAX_RECORDS + 1))


def stored(segment: Segment) -> Segment:
    import orjson

    return read_segment(
        orjson.loads(segment.octets()),
        session_uid=segment.session_uid,
        run=segment.run,
        sequence=segment.sequence,
    )


def test_replaying_what_was_stored_rebuilds_the_state() -> None:
    segments = [
        number_records("s", 1, 1, [record("state", state="running"), record("observation", observationId="o-1")]),
        number_records("s", 1, 2, [record("activity", message="reading")]),
        number_records("s", 2, 1, [record("state", state="done"), record(text="bye")]),
    ]
    assert [stored(segment) for segment in segments] == segments
    found = replay("s", [stored(segment) for segment in segments])
    assert (found.run, found.records, found.last_id) == (2, 5, "2.1.2")
    assert found.state == {"state": "done"}
    assert found.activity == {"message": "reading"}
    assert found.observations == {"o-1"}


@pytest.mark.parametrize(
    ("session", "run", "sequence"),
    [pytest.param("other", 1, 1, id="another session"), pytest.param("s", 1, 2, id="another place")],
)
def test_a_segment_of_another_journal_is_not_read(session: str, run: int, sequence: int) -> None:
    import orjson

    document = orjson.loads(number_records("s", 1, 1, [record()]).octets())
    with pytest.raises(Corrupt):
        read_segment(document, session_uid=session, run=run, sequence=sequence)


def test_replay_refuses_a_foreign_or_disordered_journal() -> None:
    one, two = number_records("s", 1, 1, []), number_records("s", 1, 2, [])
    with pytest.raises(Corrupt, match="follows"):
        replay("s", [two, one])
    with pytest.raises(Corrupt, match="stands in the journal"):
        replay("other", [one])


@pytest.mark.parametrize("text", ["", "1.2", "1.2.3.4", "0.1.1", "a.b.c", "1.1.1\n", "-1.1.1"])
def test_only_record_ids_are_positions(text: str) -> None:
    assert record_position("10.2.3") == (10, 2, 3)
    with pytest.raises(InvalidInput):
        record_position(text)
