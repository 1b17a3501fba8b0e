"""The count of nested comprehensions, and that a form which is not understood is refused."""

import contextlib

import pytest
from cel_expr_python import cel
from hypothesis import given
from hypothesis import strategies as st

from triplane.adapters.cel.nesting import UnknownForm, nesting


def checked(expression: str) -> bytes:
    kinds = {"m": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}
    return bytes(cel.NewEnv(variables=kinds).compile(expression).serialize())


@pytest.mark.parametrize(
    ("expression", "depth"),
    [
        ("true", 0), ("m.a.b == 1", 0), ("m['x'] == [1, {'k': 2}]", 0), ("[1].all(x, x > 0)", 1),
        ("[1].filter(x, x > 0).map(x, x).size() > 0", 2), ("[1].exists(x, [2].exists_one(y, x == y))", 2),
        ("{'k': [1].map(x, x)}.size() > 0", 1), ("{1: {2: [1].all(x, [2].all(y, true))}}.size() > 0", 2),
        ("m.a ? [1].all(x, true) : [[1].all(y, true)].all(z, z)", 2), ("has(m.a) || ![1].all(x, true)", 1),
        ("[1].all(x, m.a[[1].map(y, [1].map(z, z)).size()])", 3),
    ],
)  # fmt: skip
def test_loops_are_counted_wherever_they_stand(expression: str, depth: int) -> None:
    assert nesting(checked(expression)) == depth


def test_a_form_cut_short_is_refused() -> None:
    whole = checked("[1].all(x, x > 0)")
    for length in range(len(whole) - 1):
        try:
            assert nesting(whole[:length]) <= 1
        except UnknownForm:
            continue


def test_an_unknown_part_of_an_expression_is_refused() -> None:
    expr = bytes([(31 << 3 | 2) & 0x7F | 0x80, 31 * 8 >> 7, 0])
    wrapped = bytes([4 << 3 | 2, len(expr)]) + expr
    with pytest.raises(UnknownForm, match="field 31"):
        nesting(bytes([2 << 3 | 2, len(wrapped)]) + wrapped)


@given(st.binary(max_size=200))
def test_no_octets_lead_to_anything_but_a_count_or_a_refusal(octets: bytes) -> None:
    with contextlib.suppress(UnknownForm):
        assert nesting(octets) >= 0
