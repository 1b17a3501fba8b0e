"""The count of nested comprehensions, and that a form which is not understood is refused."""

import contextlib

import pytest
from cel_expr_python import cel
from hypothesis import given
from hypothesis import strategies as st

from triplane.adapters.cel.nesting import UnknownForm, names, nesting
from triplane.adapters.cel.policycode import plain_environment


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


@pytest.mark.parametrize(
    ("expression", "depth"),
    [
        pytest.param("cel.bind(a, 1, cel.bind(b, 2, cel.bind(c, 3, a + b + c == 6)))", 0, id="bindings are no loops"),
        pytest.param("cel.bind(a, [1], a.all(x, a.all(y, x == y)))", 2, id="loops within a binding are"),
        pytest.param("[1].all(x, cel.bind(y, [x], y.all(z, true)))", 2, id="also where a binding stands between them"),
        pytest.param("object.?a.optMap(v, v.all(x, true)).orValue(true)", 1, id="an optional is no loop"),
        pytest.param("{1: 2}.all(k, v, [1].exists(i, w, i == w))", 2, id="loops of two variables are"),
    ],
)
def test_only_what_loops_is_counted(expression: str, depth: int) -> None:
    assert nesting(bytes(plain_environment().compile(expression).serialize())) == depth


def test_the_names_an_expression_uses_are_those_declared() -> None:
    variables = {"variables.a": cel.Type.INT, "variables.b": cel.Type.INT, "object": cel.Type.DYN}
    whole = cel.NewEnv(variables=variables).compile("variables.a == 1 && object.variables.b == 'variables.b'")
    found = names(bytes(whole.serialize()))
    assert "variables.a" in found
    assert "variables.b" not in found
