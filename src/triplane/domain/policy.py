"""What a Policy is asked, whom it binds, and what comes of it. Its expressions are for the ``PolicyEngine``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from triplane.api.authority import Axis
from triplane.api.policy import Enforcement, PolicySpec, SelectorOperator, Stage
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.audit.digest import canonical_json, digest_of_bytes, digest_of_json
from triplane.domain.pattern import any_fits
from triplane.domain.selector import matches
from triplane.errors import InvalidInput

FAILED: Final = "EvaluationFailed"
"""Reason of a violation that says nothing but that the Policy could not be asked: it fails closed."""
NOT_ASKED: Final = "NotAsked"
"""The same of one that was not even tried, because of another object: no word on this one. It bars a launch too, but
ends nothing that is at work."""
WHOLE: Final = "policy"
"""Rule of a violation by a Policy that could not be asked at all."""
_SEVERITY: Final = {Enforcement.DENY: 0, Enforcement.WARN: 1, Enforcement.AUDIT: 2}


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

    @property
    def unsure(self) -> bool:
        """Whether some Policy could not be asked: the answer may be another the next time."""
        return any(each.rule == WHOLE for each in self.violations)

    @property
    def unasked(self) -> bool:
        """Whether nothing stands in the way but Policies that were not even tried."""
        return all((each.rule, each.reason) == (WHOLE, NOT_ASKED) for each in self.denied)


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A Policy as an object holds it."""

    namespace: str
    name: str
    uid: str
    generation: int
    digest: str
    """Of the spec (JCS)."""
    spec: PolicySpec | None
    """None: it cannot be read. A release with other rules wrote it, or ``params`` hold numbers without a digest."""
    kinds: tuple[str, ...] = ()
    """``match.kinds``, also of one that cannot be read."""

    @classmethod
    def of(cls, policy: Mapping[str, Any]) -> "KnownPolicy":
        """Read the object."""
        metadata, raw = policy["metadata"], policy.get("spec") or {}
        try:
            spec, digest = PolicySpec.model_validate(raw), digest_of_json(raw)
        except (ValidationError, InvalidInput):
            spec, digest = None, digest_of_bytes(repr(raw).encode("utf-8", "backslashreplace"))
        kinds = (raw.get("match") or {}).get("kinds") or () if isinstance(raw.get("match"), Mapping) else ()
        return cls(
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 1),
            digest=digest,
            spec=spec,
            kinds=tuple(map(str, kinds)),
        )

    @property
    def enforcement(self) -> Enforcement:
        """What a violation does; of one that cannot be read: Deny."""
        return self.spec.enforcement if self.spec is not None else Enforcement.DENY

    def violated(self, rule: str, message: str, reason: str = FAILED) -> PolicyViolation:
        """That rule of it does not hold."""
        return PolicyViolation(
            policy=self.name,
            policy_namespace=self.namespace,
            policy_uid=self.uid,
            policy_generation=self.generation,
            enforcement=self.enforcement,
            rule=rule,
            reason=reason,
            message=message,
            contact=self.spec.contact if self.spec is not None else None,
        )


def binds(policy: KnownPolicy, request: PolicyRequest) -> bool:
    """Whether the Policy is to be asked about this request, as far as that is told without its expressions.

    A Policy binds its own namespace, one of ``triplane-system`` all or those it names. Labels are those of the object
    or of what stood there before, as with ValidatingAdmissionPolicy's ``objectSelector``: relabelling does not free
    an object from a Policy. One that cannot be read binds every request about its kinds in its reach.
    """
    if policy.namespace not in (request.namespace, SYSTEM_NAMESPACE) or request.kind not in policy.kinds:
        return False
    spec = policy.spec
    if spec is None:
        return True
    if policy.namespace == SYSTEM_NAMESPACE and not any_fits(spec.match.namespaces, request.namespace):
        return False
    operations = spec.match.operations
    at_admission = request.stage is Stage.ADMISSION
    return (
        request.stage in spec.stages
        and not (at_admission and operations is not None and request.operation not in operations)
        and any(
            matches(spec.match.selector, (obj.get("metadata") or {}).get("labels") or {})
            for obj in (request.object, request.old_object)
            if obj is not None
        )
    )


def spec_problems(spec: PolicySpec) -> Iterable[PolicyProblem]:
    """What no schema says beside the expressions: which operators have values (metav1.LabelSelectorRequirement), and
    that ``params`` have a digest (RFC 8785: no integers beyond 2^53 - 1)."""
    try:
        canonical_json(spec.params)
    except InvalidInput as error:
        yield PolicyProblem("spec.params", f"{error}: write it as text, and use int() or double()")
    for place, item in enumerate((spec.match.selector and spec.match.selector.match_expressions) or ()):
        valued = item.operator in (SelectorOperator.IN, SelectorOperator.NOT_IN)
        if valued != bool(item.values):
            said = "needs values" if valued else "takes no values"
            yield PolicyProblem(f"spec.match.selector.matchExpressions[{place}].values", f"{item.operator} {said}")


def decision(
    asked: Iterable[KnownPolicy], violations: Iterable[PolicyViolation], allow_unenforced: Iterable[Axis] = ()
) -> PolicyDecision:
    """Everything put in order, and what was asked named by digest."""
    named = tuple(sorted((each.namespace, each.name, each.uid, each.generation, each.digest) for each in asked))
    ordered = sorted(
        violations,
        key=lambda each: (_SEVERITY[each.enforcement], each.policy_namespace, each.policy, _place(each.rule)),
    )
    return PolicyDecision(
        violations=tuple(ordered),
        asked=named,
        digest=_digest_of(named),
        allow_unenforced=frozenset(allow_unenforced),
    )


@lru_cache(maxsize=1024)
def _digest_of(named: tuple[tuple[str, str, str, int, str], ...]) -> str:
    """The same Policies are asked again and again."""
    return digest_of_json([list(each) for each in named])


def _place(rule: str) -> tuple[str, int, str]:
    """Rules in the order in which they stand: ``validations[10]`` after ``validations[9]``."""
    word, _, rest = rule.partition("[")
    number = rest.removesuffix("]")
    return word, int(number) if number.isdecimal() else 0, number
