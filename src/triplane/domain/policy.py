"""What a Policy is asked and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triplane.api.authority import Axis
from triplane.api.policy import Enforcement, Stage


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """Why a Policy cannot be used."""

    field: str
    """``spec.validations[2].expression``."""
    message: str
    """With line and column where the compiler tells them."""


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """What is about to happen. Objects are plain JSON mappings as the API server holds them; None where there is
    none: CEL sees ``null``."""

    stage: Stage
    operation: str
    """``CREATE`` or ``UPDATE`` at Admission, ``LAUNCH`` at Launch."""
    kind: str
    namespace: str
    name: str
    object: Mapping[str, Any]
    old_object: Mapping[str, Any] | None = None
    user: Mapping[str, Any] | None = None
    """``userInfo`` at Admission; at Launch ``{"username": …}`` of the Task's requester. CEL: ``request.userInfo``."""
    graph: Mapping[str, Any] | None = None
    node: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    """The Node if there is one, else the Graph; of a Node its Graph."""
    agent: Mapping[str, Any] | None = None
    """At Launch: who is to run. At Admission of a Task: the Agent it names, if that exists."""
    producer: Mapping[str, Any] | None = None
    """At Launch of a review session: the Agent whose outputs are reviewed."""
    authority: Mapping[str, Any] | None = None
    """At Launch: the session's effective authority (``api.authority.Grant``), every axis."""
    session: Mapping[str, Any] | None = None
    """At Launch: ``{"role": "Producer" | "Reviewer", "round": n, "run": n}``."""
    dry_run: bool = False
    """Nothing of it is recorded."""


@dataclass(frozen=True, slots=True)
class PolicyViolation:
    """One rule that does not hold."""

    policy: str
    policy_namespace: str
    policy_uid: str
    policy_generation: int
    enforcement: Enforcement
    rule: str
    """``validations[2]``, or ``matchConditions[name]``, ``variables.name`` of one that failed."""
    reason: str
    message: str
    contact: str | None
    """Who can change it."""


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What all Policies together say."""

    violations: tuple[PolicyViolation, ...]
    """Deny first, then Warn, then Audit; within that by Policy and rule."""
    asked: tuple[tuple[str, str, str, int, str], ...]
    """``(namespace, name, uid, generation, digest of the spec)`` of every Policy that binds the request, sorted: part
    of the as-run record."""
    digest: str
    """Of ``asked`` (JCS): the permit carries it."""
    allow_unenforced: frozenset[Axis] = field(default_factory=frozenset)

    @property
    def denied(self) -> tuple[PolicyViolation, ...]:
        """Those that stand in the way."""
        return tuple(each for each in self.violations if each.enforcement is Enforcement.DENY)
