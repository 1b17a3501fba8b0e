"""Capabilities that no Task could use are refused; what stands in the object already is not judged again."""

from typing import Any

import pytest

from triplane.admission.asked import Asked
from triplane.admission.lenses import LensCheck
from triplane.api.policy import Operation


async def violations(spec: dict[str, Any], old: dict[str, Any] | None = None, kind: str = "Capability") -> list[str]:
    before = None if old is None else {"spec": old}
    operation = Operation.CREATE if old is None else Operation.UPDATE
    asked = Asked("u", operation, kind, "team", "c", {"spec": spec}, before, {"username": "alice"}, False)
    outcome = await LensCheck()(asked, None)  # type: ignore[arg-type]
    return [f"{each.field}: {each.message}" for each in outcome.violations]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"instructions": "[[x]]"}, ["spec: the instructions use [[x]]"], id="an undeclared label"),
        pytest.param(
            {"parameters": [{"name": "x", "type": "Select"}]}, ["spec: parameter x: options"], id="a Select of nothing"
        ),
        pytest.param(
            {"parameters": [{"name": "x", "type": "Date", "default": "now"}]}, ["spec: the default of"], id="no date"
        ),
        pytest.param(
            {"versions": [{"version": 3}, {"version": 2}]}, ["spec.versions[2]: version 2 comes"], id="falling numbers"
        ),
        pytest.param({"versions": [{"version": 2}, {"version": 2}]}, ["spec.versions[2]"], id="one number twice"),
        pytest.param(
            {"versions": [{"version": 1, "instructions": "[[x]]"}]}, ["spec.versions[1]: the ins"], id="in a version"
        ),
        pytest.param(
            {"parameters": [{"name": "x", "type": "Select", "options": ["Paypal", "P\u0430ypal"]}]},
            ["spec.parameters[x].options: "],
            id="twins to choose from",
        ),
        pytest.param(
            {"instructions": "[[x]]", "parameters": [{"name": "x"}], "versions": [{"version": 1}]}, [], id="nothing"
        ),
    ],
)
async def test_what_is_refused(spec: dict[str, Any], said: list[str]) -> None:
    found = await violations(spec)
    assert len(found) == len(said)
    assert all(each.startswith(start) for each, start in zip(found, said, strict=True)), found


async def test_only_what_is_new_is_judged() -> None:
    stored = {"versions": [{"version": 1, "instructions": "[[x]]"}]}
    assert await violations({**stored, "title": "t"}, stored) == []
    assert len(await violations({**stored, "instructions": "[[y]]"}, stored)) == 1
    assert len(await violations({"instructions": "[[y]]"}, {"unknown": True})) == 1, "the old one cannot be read"


async def test_other_kinds_are_not_looked_at() -> None:
    assert await violations({"anything": 1}, kind="Agent") == []
