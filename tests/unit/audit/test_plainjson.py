"""What one backend cannot keep, none takes; what is taken comes back equal."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from triplane.audit.plainjson import json_copy, json_text
from triplane.errors import InvalidInput

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["\\u0000"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=10,
)


def keepable(value: object) -> bool:
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
        case float():
            return abs(value) < float("inf")
        case list():
            return all(map(keepable, value))
        case dict():
            return all(keepable(key) and keepable(each) for key, each in value.items())
    return True


@given(values)
@example("\0")
@example("\\u0000")
@example("\\\0")
@example("\\\\u0000")
@example({"\0": 1})
@example(["\ud800"])
def test_a_value_is_kept_whole_or_refused(value: object) -> None:
    try:
        text = json_text(value)
    except InvalidInput:
        assert not keepable(value)
        return
    assert keepable(value)
    assert json.loads(text) == json_copy(value) == value
