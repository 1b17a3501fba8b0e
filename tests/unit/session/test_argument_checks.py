"""Arguments against schemas that somebody else wrote."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from triplane.session.tools.checking import ArgumentChecks, CannotCheck, problem_here

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}


@pytest.fixture
async def checks() -> AsyncIterator[ArgumentChecks]:
    made = ArgumentChecks()
    yield made
    await made.close()


@pytest.mark.parametrize(
    "dialect",
    [
        None,
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-04/schema#",
    ],
)
async def test_every_published_dialect_is_understood(checks: ArgumentChecks, dialect: str | None) -> None:
    schema = TEXT if dialect is None else {**TEXT, "$schema": dialect}

    assert await checks.problem(schema, {"text": "x"}) is None
    assert "/text" in str(await checks.problem(schema, {"text": 1}))
    assert "'text' is a required property" in str(await checks.problem(schema, {}))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        pytest.param(
            {"$schema": "https://elsewhere.example/schema"}, "no published dialect", id="a dialect of its own"
        ),
        pytest.param({"type": "objekt"}, "the schema is invalid", id="no schema"),
        pytest.param({"$ref": "https://elsewhere.example/schema"}, "nothing is fetched", id="a schema elsewhere"),
    ],
)
async def test_what_is_no_usable_schema_lets_nothing_through(
    checks: ArgumentChecks, schema: dict[str, Any], problem: str
) -> None:
    assert problem in str(await checks.problem(schema, {"text": "x"}))


async def test_a_check_that_takes_too_long_is_given_up_and_the_next_one_works(checks: ArgumentChecks) -> None:
    slow = {"type": "object", "properties": {"text": {"pattern": "^(a|a)*$"}}}
    began = time.monotonic()
    with pytest.raises(CannotCheck, match="within 3 s"):
        await checks.problem(slow, {"text": "a" * 40 + "!"})
    assert time.monotonic() - began < 30
    assert await checks.problem(slow, {"text": "aaa"}) is None


def test_what_it_says_quotes_no_secret_and_no_control_character() -> None:
    said = problem_here(
        {"type": "object", "properties": {"text": {"enum": ["x"]}}}, {"text": "\x1b[2J Bearer abcdef0123456789abcdef"}
    )

    assert "\x1b" not in str(said)
    assert "abcdef0123456789" not in str(said)
