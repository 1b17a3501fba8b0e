"""Which version of a Capability a Task gets, and what its instructions say then."""

import json
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.api.capability import Capability, CapabilitySpec, LabelType, Lens
from triplane.domain.lens import (
    CapabilityUse,
    ChosenLens,
    bare_names,
    capability_problems,
    choose,
    draft,
    lens_digest,
    lens_problems,
    newest_version,
    next_version,
    settle_lenses,
)

DIGEST = "sha256:" + "a" * 64


def capability(name: str = "write", generation: int = 7, **spec: Any) -> Capability:
    return Capability.model_validate(
        {
            "apiVersion": "triplane.dev/v1alpha1",
            "kind": "Capability",
            "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": generation},
            "spec": spec,
        }
    )


def version(number: int, text: str = "", **fields: Any) -> dict[str, Any]:
    return {"version": number, "instructions": text or f"As of {number}", **fields}


def chosen(item: Capability, number: int | None = None) -> ChosenLens:
    found = choose(item, number)
    assert isinstance(found, ChosenLens), found
    return found


def pinned(item: ChosenLens) -> tuple[Any, ...]:
    """What the snapshot says of it, and what a session is told."""
    return item.label, item.uid, item.generation, item.digest, item.instructions


def lens(*labels: dict[str, Any], text: str = "", name: str = "write") -> ChosenLens:
    return chosen(capability(name, instructions=text or None, parameters=list(labels)))


@pytest.mark.parametrize(
    ("spec", "number", "expected"),
    [
        pytest.param({"instructions": "d"}, None, ("write", "d"), id="the draft while nothing is published"),
        pytest.param(
            {"instructions": "d", "versions": [version(1), version(4)]}, None, ("write@4", "As of 4"), id="the newest"
        ),
        pytest.param(
            {"versions": [version(1), version(2, archived=True)]},
            None,
            ("write@1", "As of 1"),
            id="not an archived one",
        ),
        pytest.param(
            {"versions": [version(1), version(2, archived=True)]}, 2, ("write@2", "As of 2"), id="archived, by number"
        ),
        pytest.param({"versions": [version(1), version(2)]}, 1, ("write@1", "As of 1"), id="an older one, by number"),
    ],
)
def test_a_task_gets(spec: dict[str, Any], number: int | None, expected: tuple[str, str]) -> None:
    found = chosen(capability(**spec), number)
    assert (found.label, found.instructions) == expected


@pytest.mark.parametrize(
    ("spec", "number", "said"),
    [
        pytest.param({}, 1, "no version 1; published: none", id="nothing is published"),
        pytest.param({"versions": [version(2)]}, 3, "no version 3; published: 2", id="not that one"),
        pytest.param(
            {"instructions": "d", "versions": [version(2, archived=True)]}, None, "write@2", id="all are archived"
        ),
    ],
)
def test_there_is_no_such_version(spec: dict[str, Any], number: int | None, said: str) -> None:
    found = choose(capability(**spec), number)
    assert not isinstance(found, ChosenLens)
    assert found[0] == "CapabilityVersionNotFound"
    assert said in found[1]


def test_a_published_version_is_the_same_whatever_becomes_of_its_capability() -> None:
    before = chosen(capability(generation=1, instructions="new", versions=[version(1)]), 1)
    after = chosen(capability(generation=9, instructions="newer", versions=[version(1, archived=True), version(2)]), 1)
    assert pinned(before) == pinned(after)
    first, second = capability(generation=1, instructions="x"), capability(generation=2, instructions="x")
    assert pinned(chosen(first)) != pinned(chosen(second)), "a draft is of its generation"


def test_names_with_and_without_versions() -> None:
    assert CapabilityUse.parse("write") == CapabilityUse("write", None)
    assert CapabilityUse.parse("write@12") == CapabilityUse("write", 12)
    assert bare_names(["b@1", "a", "b"]) == ("b", "a")
    assert bare_names(None) == ()


def test_publishing_takes_the_draft_once() -> None:
    spec = CapabilitySpec.model_validate({"instructions": "x", "outputs": []})
    first = next_version(spec)
    assert first is not None
    assert (first.version, first.instructions, first.archived) == (1, "x", False)
    published = CapabilitySpec.model_validate({"instructions": "x", "versions": [first.wire()]})
    assert next_version(published) is None
    assert lens_digest(first) == lens_digest(draft(published))
    edited = CapabilitySpec.model_validate({"instructions": "y", "versions": [first.wire()]})
    assert next_version(edited) is not None
    archived = CapabilitySpec.model_validate({"instructions": "x", "versions": [{**first.wire(), "archived": True}]})
    again = next_version(archived)
    assert again is not None, "what is archived is not what Tasks get"
    assert (again.version, newest_version(archived)) == (2, None)


def test_values_are_put_into_every_lens_that_declares_them() -> None:
    one = lens({"name": "tone", "default": "plain"}, {"name": "words"}, text="[[tone]], [[words]] words", name="a")
    two = lens({"name": "tone", "default": "dry"}, text="Be [[tone]]", name="b")
    settled = settle_lenses([one, two], {"words": "300"})
    assert settled.problems == ()
    assert [item.instructions for item in settled.lenses] == ["plain, 300 words", "Be dry"]
    settled = settle_lenses([one, two], {"words": "300", "tone": "warm"})
    assert [item.instructions for item in settled.lenses] == ["warm, 300 words", "Be warm"]
    assert [item.digest for item in settled.lenses] == [one.digest, two.digest], "what is declared, not what is set"


@pytest.mark.parametrize(
    ("labels", "given", "reason", "said"),
    [
        pytest.param([], {"x": "1"}, "ParameterUnknown", "no required Capability has a parameter x", id="unknown"),
        pytest.param([{"name": "x"}], {}, "ParameterMissing", "spec.capabilityParameters", id="missing"),
        pytest.param(
            [{"name": "x", "type": "Integer"}], {"x": "one"}, "ParameterInvalid", "whole number", id="of another type"
        ),
        pytest.param(
            [{"name": "x", "type": "Integer", "default": "one"}], {}, "ParameterInvalid", "default", id="a bad default"
        ),
        pytest.param(
            [{"name": "x", "type": "Select"}], {"x": "a"}, "ParameterInvalid", "Select", id="nothing to select"
        ),
    ],
)
def test_what_is_wrong_with_parameters_is_told(
    labels: list[dict[str, Any]], given: dict[str, str], reason: str, said: str
) -> None:
    problems = settle_lenses([lens(*labels)], given).problems
    assert problems[0][0] == reason
    assert said in problems[0][1]


def test_blobs_that_parameters_name_are_found() -> None:
    style = {"name": "style", "type": "File"}
    assert settle_lenses([lens(style)], {"style": DIGEST}).files == (("style", DIGEST),)
    one, two = lens({**style, "default": DIGEST}, name="a"), lens({**style, "default": "sha256:" + "b" * 64}, name="b")
    ((reason, message),) = settle_lenses([one, two], {}).problems
    assert (reason, "another default" in message) == ("ParameterInvalid", True)
    assert settle_lenses([one, two], {"style": DIGEST}).problems == ()


def test_a_lens_is_refused_for_what_no_schema_sees() -> None:
    wrong = Lens.model_validate(
        {
            "instructions": "Use [[tone]] and [[tome]]",
            "parameters": [{"name": "tone", "type": "Date", "default": "soon"}, {"name": "kind", "type": "Select"}],
        }
    )
    said = [message for _, message in lens_problems(wrong)]
    assert len(said) == 3
    assert "tone" in said[0]
    assert "kind" in said[1]
    assert "[[tome]]" in said[2]


def test_versions_rise() -> None:
    spec = CapabilitySpec.model_validate({"versions": [version(2), version(1), version(3, "[[gone]]")]})
    found = dict(capability_problems(spec))
    assert set(found) == {"spec.versions[1]", "spec.versions[3]"}
    assert "after version 2" in found["spec.versions[1]"]


TYPES: dict[LabelType, tuple[st.SearchStrategy[str], list[str]]] = {
    LabelType.TEXT: (st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), ["a\nb", "a\n"]),
    LabelType.TEXTAREA: (st.text(st.characters(exclude_categories=["Cs"])), []),
    LabelType.JSON: (
        st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab"), st.lists, max_leaves=4).map(
            json.dumps
        ),
        ["", "{", "nan", "{'a': 1}", "1 2"],
    ),
    LabelType.NUMBER: (
        (st.integers() | st.floats(allow_nan=False, allow_infinity=False, width=32)).map(json.dumps),
        ["", "+1", "01", ".5", "1.", "NaN", "1e999", "0x1", "٣"],
    ),
    LabelType.INTEGER: (st.integers(-(2**63), 2**63 - 1).map(str), ["", "1.0", str(2**63), "1e3", "٣", "1_000"]),
    LabelType.FLOAT: (st.floats(allow_nan=False, allow_infinity=False).map(repr), ["", "inf", "nan", "1e999", "1,5"]),
    LabelType.DECIMAL: (st.decimals(-(10**6), 10**6, places=3).map(str), ["", "nan", "1,5", "1 000", "--1"]),
    LabelType.BOOLEAN: (st.sampled_from(["true", "false"]), ["", "True", "1", "yes", " true"]),
    LabelType.SELECT: (st.sampled_from(["red", "blue"]), ["", "Red", "green", "red "]),
    LabelType.URL: (
        st.tuples(
            st.sampled_from(["http", "https"]),
            st.from_regex(r"[a-z]{1,9}\.[a-z]{2,3}", fullmatch=True),
            st.text("ab/?=&#", max_size=9),
        ).map(lambda parts: f"{parts[0]}://{parts[1]}/{parts[2]}"),
        ["", "example.com", "ftp://a.b", "http://", "https://u:p@a.b", "http://a.b/ c", "http://a.b:x", "http://a.b/ü"],
    ),
    LabelType.DATE: (
        st.dates().map(date.isoformat),
        ["", "2026-02-30", "20260301", "2026-3-1", "2026-03-01T00:00:00Z"],
    ),
    LabelType.DATETIME: (
        st.datetimes().map(lambda at: f"{datetime.isoformat(at)}Z"),
        ["", "2026-03-01", "2026-03-01T12:00:00", "2026-03-01T25:00:00Z", "2026-03-01T12:00Z", "now"],
    ),
    LabelType.FILE: (
        st.uuids().map(lambda each: f"sha256:{UUID.hex.fget(each) * 2}"),  # type: ignore[attr-defined]
        ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, DIGEST + "\n", "md5:" + "a" * 32],
    ),
}  # fmt: skip


def test_every_type_is_checked() -> None:
    assert set(TYPES) == set(LabelType)


@pytest.mark.parametrize("type_", TYPES, ids=str)
@given(data=st.data())
def test_values_of_a_type_pass_and_others_do_not(type_: LabelType, data: st.DataObject) -> None:
    good, bad = TYPES[type_]
    item = {"name": "x", "type": type_.value} | ({"options": ["red", "blue"]} if type_ is LabelType.SELECT else {})
    value = data.draw(good)
    settled = settle_lenses([lens(item, text="<[[x]]>")], {"x": value})
    assert settled.problems == (), value
    assert settled.lenses[0].instructions == f"<{value}>"
    for wrong in bad:
        ((reason, message),) = settle_lenses([lens(item)], {"x": wrong}).problems
        assert (reason, "parameter x is" in message) == ("ParameterInvalid", True), wrong


@given(st.text("ab[]x", max_size=30), st.dictionaries(st.sampled_from(["a", "b", "x"]), st.text("ab[]x", max_size=12)))
def test_what_looks_like_a_parameter_inside_a_value_stays_as_it_is(text: str, given_: dict[str, str]) -> None:
    labels = [{"name": name, "default": ""} for name in "abx"]
    settled = settle_lenses([lens(*labels, text=text or " ")], given_)
    values = {name: given_.get(name, "") for name in "abx"}
    expected, rest = [], text or " "
    while rest:  # the plain way: once, from left to right, never looking at what was put in
        found = next((name for name in "abx" if rest.startswith(f"[[{name}]]")), None)
        if found is not None:
            expected.append(values[found])
            rest = rest[len(found) + 4 :]
        else:
            expected.append(rest[0])
            rest = rest[1:]
    assert settled.lenses[0].instructions == "".join(expected)
