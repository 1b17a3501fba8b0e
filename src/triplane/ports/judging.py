"""Judgements on what users wrote, made where it can do no harm."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from triplane.api.policy import PolicySpec
from triplane.domain.policy import PolicyDecision, PolicyProblem, PolicyRequest


class Expressions(Protocol):
    """CEL conditions of users: bounded in size, nesting and time. ``steps`` and ``parameters`` are declared
    (docs/reference/conditions-in-cel.md)."""

    async def check(self, expression: str) -> None:
        """Raise ``InvalidExpression`` unless it compiles to a boolean and is cheap enough; says where and why."""
        ...

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        """Its value. Raises ``InvalidExpression``: it does not compile, fails on these values (a missing key, a
        wrong type), or takes too long."""
        ...


class Contracts(Protocol):
    """Whether stored contents meet a contract, judged where a hostile schema can do no harm."""

    async def problem(self, digest: str, media_type: str, schema: Mapping[str, Any] | None) -> str | None:
        """How the blob breaks its media type or the JSON Schema (2020-12); None if it meets them. A check that takes
        too long or too much memory is a problem. Raises ``BlobMissing``, ``Corrupt``, ``Unavailable``."""
        ...


class PolicyEngine(Protocol):
    """Policies in CEL, compiled and evaluated where they can do no harm: bounded in size, nesting, time."""

    async def problems(self, spec: PolicySpec) -> Sequence[PolicyProblem]:
        """What keeps this Policy from being used: each expression that does not compile, has the wrong type, or costs
        too much, with its field and position. Empty: it can be used."""
        ...

    async def decide(self, policies: Sequence[Mapping[str, Any]], request: PolicyRequest) -> PolicyDecision:
        """Ask every one of these Policy objects that binds and matches the request (``domain.policy.binds``). An
        expression that fails, or takes too long, is a violation of its Policy (fail closed, as ``failurePolicy:
        Fail``). Raises ``Unavailable`` when none can be asked."""
        ...
