"""Names made of names: deterministic, at most 63 characters, and never two alike for different parts."""

import re

from hypothesis import given
from hypothesis import strategies as st

from triplane.api.text import DNS_LABEL
from triplane.domain.naming import MAX_LABEL, fingerprint, object_name, public_id

LABELS = st.from_regex(DNS_LABEL, fullmatch=True).filter(lambda label: len(label) <= 253)


@given(st.lists(LABELS, min_size=1, max_size=4))
def test_a_name_made_of_names_is_a_label_of_at_most_63_characters(parts: list[str]) -> None:
    name = object_name(*parts)
    assert len(name) <= MAX_LABEL
    assert re.fullmatch(DNS_LABEL, name)
    assert name == object_name(*parts)


def test_short_names_are_joined_as_they_are() -> None:
    assert object_name("audit", "count") == "audit-count"


def test_long_names_with_one_beginning_stay_apart() -> None:
    first, second = (object_name("n" * 253, step) for step in ("count", "sum"))
    assert len(first) == len(second) == MAX_LABEL
    assert first != second
    assert object_name("n" * 252, "count") != first


def test_the_cut_never_ends_in_a_dot_or_dash() -> None:
    name = object_name("n" * 53 + "." * 40 + "end")
    assert re.fullmatch(r"n{53}-[0-9a-f]{8}", name)


def test_parts_do_not_run_into_one_another() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_a_public_id_belongs_to_one_incarnation() -> None:
    assert public_id("reviewer", "uid-1") != public_id("reviewer", "uid-2")
    assert re.fullmatch(r"reviewer-[0-9a-f]{8}", public_id("reviewer", "uid-1"))
    assert len(public_id("n" * 253, "uid-1")) <= MAX_LABEL
