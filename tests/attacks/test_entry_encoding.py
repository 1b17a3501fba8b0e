"""Row 22 of the attack table: values that two readers of one entry would read, or write, in two ways.

Each is first let through with the protection removed, and shown to do harm; then it is refused where it would be
appended, and found by its sequence number where somebody put it into a stored log.
"""

import ctypes
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import rfc8785
from tests.contract.test_event_log import body

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.audit import entry as entries
from triplane.audit.chain import ChainVerifier, StoredEntry, projections
from triplane.audit.entry import open_entry, parse, prepare
from triplane.audit.merkle import leaf_hash
from triplane.errors import InvalidEntry

pytestmark = pytest.mark.attacks

ORIGIN, PREV, TIME = "localhost/0123456789abcdef", "0" * 64, "2026-01-02T03:04:05.000006Z"


def sealed(data: Any) -> bytes:
    return prepare(ORIGIN, body(1, data=data)).seal(0, PREV, TIME)


def data_of(octets: bytes) -> bytes:
    return octets[octets.index(b'"data":') + 7 : octets.index(b',"id":')]


def written_otherwise_by_the_standard(octets: bytes, value: Any) -> None:
    """RFC 8785 writes it in another way: a verifier in another language finds a break where there is none."""
    assert data_of(octets) != rfc8785.dumps({"a": value})


def written_otherwise_by_python(octets: bytes, value: Any) -> None:
    assert json.dumps({"a": value}, separators=(",", ":")).encode() != data_of(octets)


def two_numbers_are_one_to_javascript(octets: bytes, value: int) -> None:
    """A reader whose numbers are IEEE 754 doubles cannot tell this from the next."""
    next_ = sealed({"a": value + 1})
    assert octets != next_
    assert json.loads(octets, parse_int=float)["data"] == json.loads(next_, parse_int=float)["data"]


def recorded_as_nothing(octets: bytes, value: float) -> None:
    assert orjson.loads(octets)["data"] == {"a": None}


def cut_by_a_reader_in_c(octets: bytes, value: str) -> None:
    text = orjson.loads(octets)["data"]["a"].encode()
    assert ctypes.c_char_p(text).value == b"approved"
    assert text != b"approved"


def sorted_otherwise_by_the_standard(octets: bytes, value: Any) -> None:
    assert data_of(octets) != rfc8785.dumps({"a": value})
    assert orjson.loads(data_of(octets)) == {"a": value}


Harm = Callable[[bytes, Any], None]
VALUES = [
    pytest.param(-0.0, written_otherwise_by_the_standard, "data.a: -0.0 is a float", id="negative zero"),
    pytest.param(1e-7, written_otherwise_by_python, "data.a: 1e-07 is a float", id="1e-7"),
    pytest.param(1e16, written_otherwise_by_the_standard, "data.a: 1e+16 is a float", id="1e16"),
    pytest.param(2**53, two_numbers_are_one_to_javascript, "data.a: 9007199254740992 is outside", id="2^53"),
    pytest.param(math.nan, recorded_as_nothing, "data.a: nan is a float", id="NaN"),
    pytest.param("approved\0 by nobody", cut_by_a_reader_in_c, "data.a: contains NUL", id="NUL"),
    pytest.param(
        {"\ue000": 1, "😀": 2}, sorted_otherwise_by_the_standard, "data.a: key ", id="keys outside the basic plane"
    ),
]


@pytest.mark.parametrize(("value", "harm", "says"), VALUES)
async def test_a_value_with_two_spellings_does_harm_and_is_refused_by_path(
    monkeypatch: pytest.MonkeyPatch, value: Any, harm: Harm, says: str
) -> None:
    with monkeypatch.context() as removed:
        removed.setattr(entries, "_check_items", lambda *_: None)
        harm(sealed({"a": value}), value)
    log = MemoryEventLog()
    before = await log.head()
    with pytest.raises(InvalidEntry) as refused:
        await log.append([body(1, data={"a": value})])
    assert str(refused.value).startswith(says)
    assert await log.head() == before


async def test_a_lone_surrogate_is_text_to_one_parser_and_none_to_another_and_is_refused_by_path() -> None:
    """No protection can be removed to show it: the encoder has no octets for it. Python's own has, and reads it."""
    octets = json.dumps({"a": "\ud800"}).encode()
    assert json.loads(octets) == {"a": "\ud800"}
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(octets)
    with pytest.raises(InvalidEntry, match=r"^data\.a: contains a lone surrogate"):
        await MemoryEventLog().append([body(1, data={"a": "\ud800"})])


VALID = sealed({"a": 1})
STORED = [
    pytest.param(VALID.replace(b'"a":1', b'"a":1,"a":2'), "the key 'a' occurs twice", id="a duplicate key"),
    pytest.param(VALID.replace(b'"a":1', b'"a":-0'), "canonical", id="negative zero"),
    pytest.param(VALID.replace(b'"a":1', b'"a":1e-7'), "is a float", id="1e-7"),
    pytest.param(VALID.replace(b'"a":1', b'"a":9007199254740992'), "is outside", id="2^53"),
    pytest.param(VALID.replace(b'"a":1', b'"a":NaN'), "not JSON", id="NaN"),
    pytest.param(VALID.replace(b'"a":1', b'"a":"\\u0000"'), "contains NUL", id="NUL"),
    pytest.param(VALID.replace(b'"a":1', b'"a":"\\ud800"'), "not JSON", id="a lone surrogate"),
    pytest.param(
        VALID.replace(b'"a":1', '"😀":1,"\ue000":2'.encode()), "data: key ", id="keys outside the basic plane"
    ),
]


@pytest.mark.parametrize(("octets", "says"), STORED)
def test_octets_with_two_readings_are_found_in_a_stored_log_by_their_number(octets: bytes, says: str) -> None:
    row = stored(octets)
    assert row.leaf == leaf_hash(octets), "hashes alone do not tell: the attacker has computed them anew"
    verifier = ChainVerifier(ORIGIN)
    assert not verifier.feed(row)
    broken = verifier.result().broken
    assert broken is not None
    assert (broken.seq, broken.reason) == (0, "Malformed")
    assert broken.message.startswith("entry 0: ")
    assert says in broken.message


def stored(octets: bytes) -> StoredEntry:
    """The row as one who owns the database would write it."""
    opened = open_entry(VALID)
    return StoredEntry(0, octets, leaf_hash(octets), projections(opened.entry), (0, opened.body_sha256))


def test_without_the_second_encoding_a_duplicate_key_is_read_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was parsed is encoded anew and compared: without that comparison the last key wins here, the first there."""
    octets = VALID.replace(b'"a":1', b'"a":1,"a":2')
    first_wins = json.loads(octets, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    with monkeypatch.context() as removed:
        removed.setattr(entries.Prepared, "seal", lambda *_: octets)
        assert parse(octets)["data"] == {"a": 2} != first_wins["data"]
    with pytest.raises(InvalidEntry, match="the key 'a' occurs twice"):
        parse(octets)


def test_the_untouched_row_verifies() -> None:
    verifier = ChainVerifier(ORIGIN)
    assert verifier.feed(replace(stored(VALID)))
