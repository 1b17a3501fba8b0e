"""Digests are parsed strictly, and canonical JSON equals the reference implementation of RFC 8785."""

import hashlib
import math

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from triplane.audit.digest import (
    canonical_json,
    digest_of_bytes,
    digest_of_hex,
    digest_of_json,
    parse_digest,
)
from triplane.domain.session import EMPTY_OBJECT_DIGEST
from triplane.errors import InvalidDigest, InvalidInput

HEX = hashlib.sha256(b"abc").hexdigest()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def test_a_digest_parses_to_its_hex() -> None:
    assert parse_digest(f"sha256:{HEX}") == HEX
    assert digest_of_bytes(b"abc") == f"sha256:{HEX}" == digest_of_hex(HEX)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HEX, id="no algorithm"),
        pytest.param(f"sha512:{HEX}", id="another algorithm"),
        pytest.param(f"SHA256:{HEX}", id="upper case algorithm"),
        pytest.param(f"sha256:{HEX.upper()}", id="upper case digits"),
        pytest.param(f"sha256:{HEX[:-1]}", id="a digit short"),
        pytest.param(f"sha256:{HEX}0", id="a digit long"),
        pytest.param(f"sha256:{HEX}\n", id="trailing newline"),
        pytest.param(f" sha256:{HEX}", id="leading space"),
        pytest.param(f"sha256:{'٠' * 64}", id="digits of another script"),
        pytest.param("sha256:../../../../../../../../../../../../../../../../../etc/passwd", id="traversal"),
        pytest.param(f"sha256:{HEX[:62]}/x", id="a slash"),
        pytest.param(f"sha256:{HEX[:63]}\0", id="a NUL"),
        pytest.param("", id="nothing"),
        pytest.param(None, id="not a string"),
    ],
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest, match="64 lowercase"):
        parse_digest(text)


def test_the_digest_of_an_empty_object_is_the_documented_constant() -> None:
    assert digest_of_json({}) == EMPTY_OBJECT_DIGEST


@settings(max_examples=500, deadline=None)
@given(json_values)
@example({"\ue000": 1, "\U0001f600": 2})
@example([0.0, -0.0, 1e-7, 1e-6, 1e21, 1e20, 123456789.125, 5e-324, 1.7976931348623157e308, 1.0, 100.0])
def test_canonical_json_equals_the_reference_implementation(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@settings(max_examples=500, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_equals_the_reference_implementation(value: float) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


def test_keys_sort_by_utf16_code_unit() -> None:
    assert canonical_json({"\ue000": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ue000":1}'.encode()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="NaN"),
        pytest.param(math.inf, id="infinity"),
        pytest.param(2**53, id="integer no double holds surely"),
        pytest.param("\ud800", id="lone surrogate in a string"),
        pytest.param({"\ud800": 1}, id="lone surrogate in a key"),
        pytest.param({1: 1}, id="key that is no string"),
        pytest.param({"a": {1, 2}}, id="a set"),
        pytest.param(b"x", id="octets"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="no canonical JSON"):
        canonical_json(value)


def test_nesting_too_deep_is_refused_not_crashed() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="no canonical JSON"):
        canonical_json(deep)
    while deep:  # taken apart by hand: freeing it recursively is not what is tested
        deep = deep.pop()  # type: ignore[assignment]
