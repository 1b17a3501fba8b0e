"""Tools as Tasks refer to them."""

from typing import Any

import pytest

from triplane.api.tool import ToolSpec
from triplane.audit.digest import digest_of_json
from triplane.domain.tool import frozen_tool, host_of, secrets_of, tool_problem


def spec(**given: Any) -> ToolSpec:
    return ToolSpec.model_validate(given)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        pytest.param(None, None, id="no schema"),
        pytest.param({"type": "object"}, None, id="an object"),
        pytest.param({"type": "array"}, "arguments are a JSON object", id="something else"),
        pytest.param({"type": "objekt"}, "the schema is invalid at /type", id="no schema at all"),
        pytest.param(
            {"type": "object", "$schema": "http://json-schema.org/draft-04/schema"}, "is understood", id="old"
        ),
    ],
)
def test_a_schema_must_be_one(schema: dict[str, Any] | None, problem: str | None) -> None:
    found = tool_problem(spec(exec={"program": "x", "inputSchema": schema}))

    assert (found is None) if problem is None else (problem in str(found))


def test_what_is_frozen_is_what_was_hashed() -> None:
    body = {"builtin": "clock", "deny": ["now"]}
    obj = {"metadata": {"name": "clock", "uid": "u", "generation": 3}, "spec": body}

    assert frozen_tool(obj) == {
        "name": "clock",
        "uid": "u",
        "generation": 3,
        "digest": digest_of_json(body),
        "spec": body,
    }


SECRET = {"name": "keys", "key": "api", "env": "API"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"stdio": {"program": "x", "secrets": [SECRET, {**SECRET, "key": "b", "env": "B"}]}}, ("keys",)),
        ({"exec": {"program": "x", "secrets": [SECRET]}}, ("keys",)),
        ({"http": {"url": "https://x.example/mcp", "token": {"name": "keys", "key": "api"}}}, ("keys",)),
        ({"http": {"url": "https://x.example/mcp"}}, ()),
        ({"builtin": "clock"}, ()),
    ],
)
def test_secrets_it_needs(body: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert secrets_of(spec(**body)) == expected


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://x.example/mcp", "x.example:443"),
        ("https://x.example:8443/mcp", "x.example:8443"),
        ("http://127.0.0.1:80/", "127.0.0.1:80"),
        ("http://[::1]:9/mcp", "[::1]:9"),
        ("http://localhost/mcp", "localhost:80"),
    ],
)
def test_the_host_it_lives_on(url: str, host: str) -> None:
    assert host_of(spec(http={"url": url})) == host
    assert host_of(spec(builtin="clock")) is None
