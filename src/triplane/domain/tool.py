"""Tools as Tasks refer to them: is one usable, and what is frozen of it with a session.

A session host believes nothing but its work order, so everything a call is held against is in there.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from triplane.api.authority import SecretKey
from triplane.api.tool import ToolSpec
from triplane.audit.digest import digest_of_json
from triplane.domain.contract import schema_problem

EXEC_OPERATION: Final = "run"
"""The one operation of an exec Tool."""


def tool_problem(spec: ToolSpec) -> str | None:
    """What keeps the Tool from being offered; None if nothing does."""
    schema = spec.exec_.input_schema if spec.exec_ is not None else None
    if schema is not None:
        if (problem := schema_problem(schema)) is not None:
            return f"exec.inputSchema: {problem}. Correct the Tool"
        if schema.get("type") != "object":
            return "exec.inputSchema: arguments are a JSON object: give it `type: object`"
    return None


def secrets_of(spec: ToolSpec) -> tuple[str, ...]:
    """Names of the Secrets the Tool needs: the session's authority must grant each."""
    declared = spec.stdio or spec.exec_
    uses: list[SecretKey] = list(declared.secrets or ()) if declared is not None else []
    if spec.http is not None and spec.http.token is not None:
        uses.append(spec.http.token)
    return tuple(sorted({use.name for use in uses}))


def host_of(spec: ToolSpec) -> str | None:
    """``host:port`` of an http Tool, as the axis egress knows it; None for the others."""
    if spec.http is None:
        return None
    place = urlsplit(spec.http.url)
    host, port = place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def frozen_tool(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The Tool's line of the work order; ``spec`` is what ``digest`` was made of."""
    metadata, spec = obj["metadata"], obj["spec"]
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 1),
        "digest": digest_of_json(spec),
        "spec": spec,
    }
