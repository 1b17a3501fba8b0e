"""A value that looks like a parameter: put in twice, whoever sets one value would say another, or never end."""

from typing import Any

import pytest
from tests.unit.controllers.test_task_instructions import begin, change, made, told

from triplane.domain import lens as lenses
from triplane.domain.parameters import put_into

pytestmark = pytest.mark.attacks

LENS = {
    "version": 1,
    "instructions": "Subject: [[subject]]. Limit: [[limit]].",
    "parameters": [{"name": "subject"}, {"name": "limit", "type": "Integer", "default": "10"}],
}


async def said(**values: str) -> str:
    built = made()
    built.server.edit("Capability", "write", versions=[LENS])
    change(built, requiredCapabilities=["write"], capabilityParameters=values)
    ((_, _, instructions),) = told(await begin(built))
    assert instructions is not None
    return instructions


async def test_put_in_until_nothing_changes_one_value_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeatedly(text: str, values: Any) -> str:
        for name, value in values.items():  # one after the other: what was put in is looked at again
            text = put_into(text, {name: value})
        return text

    monkeypatch.setattr(lenses, "put_into", repeatedly)
    assert await said(subject="[[limit]]") == "Subject: 10. Limit: 10."


@pytest.mark.parametrize("value", ["[[limit]]", "[[subject]]", "[[[[limit]]]]", "[[lim", "]] [[limit"])
async def test_a_value_is_put_in_as_it_is(value: str) -> None:
    assert await said(subject=value, limit="7") == f"Subject: {value}. Limit: 7."


async def test_two_values_do_not_make_a_third() -> None:
    built = made()
    joined = {"name": "a"}, {"name": "b"}, {"name": "secret", "default": "classified"}
    built.server.edit(
        "Capability", "write", versions=[{"version": 1, "instructions": "[[a]][[b]]", "parameters": list(joined)}]
    )
    change(built, requiredCapabilities=["write"], capabilityParameters={"a": "[[sec", "b": "ret]]"})
    assert [text for _, _, text in told(await begin(built))] == ["[[secret]]"]
