"""Policies at admission: a broken one is not let in, and those that are in are asked about everything else.

What is asked is what is watched; a change takes effect within the watch's delay (milliseconds), at launch at once.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from triplane.admission.asked import Asked, Outcome, Reads
from triplane.admission.nearby import Known, Nearby
from triplane.api.policy import Enforcement, Operation, PolicyKind, PolicySpec, Stage
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.domain.admission import Violation, policy_field
from triplane.domain.policy import PolicyDecision, PolicyRequest, PolicyViolation
from triplane.ports import PolicyEngine

_KINDS: Final = frozenset(PolicyKind)
_STOPPING: Final = frozenset({"suspend", "cancel"})
"""Fields of a spec that only stop work, or let it go on: that is judged at launch, and must not wait for anybody."""
_NAMED: Final = re.compile(r"\b(graph|node|parent|agent)\b")
_EVERYTHING: Final = frozenset({"graph", "node", "parent", "agent"})
_MAX_ANNOTATION: Final = 16_384
_MAX_MENTIONED: Final = 4096


class Policies(Protocol):
    """The Policies there are."""

    def within(self, *namespaces: str) -> Sequence[dict[str, Any]]:
        """Those of these namespaces; raises ``Unavailable`` when they are not known now."""
        ...


class Notes(Protocol):
    """Takes note of what was violated, and never keeps anybody waiting."""

    def note(self, decision: PolicyDecision, request: PolicyRequest) -> None: ...


class BrokenPolicies:
    """``Check``: a Policy whose expressions do not compile, have the wrong type or cost too much is refused."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``Check``."""
        if asked.kind != "Policy" or (asked.old is not None and asked.old.get("spec") == asked.object.get("spec")):
            return Outcome()
        spec = PolicySpec.model_validate(asked.object.get("spec"))
        found = [Violation(each.field, each.message, "PolicyInvalid") for each in await self._engine.problems(spec)]
        if spec.match.namespaces is not None and asked.namespace != SYSTEM_NAMESPACE:
            said = f"a Policy binds its own namespace; only those in {SYSTEM_NAMESPACE} name others: leave it out"
            found.append(Violation("spec.match.namespaces", said, "PolicyInvalid"))
        return Outcome(tuple(found))


class PolicyCheck:
    """``Check``: what the Policies in force say of an object. Nothing of a dry run is noted."""

    def __init__(
        self, policies: Policies, engine: PolicyEngine, notes: Notes, known: Mapping[str, Known] | None = None
    ) -> None:
        """``known``: kinds of which what a watch tells will do."""
        self._policies = policies
        self._engine = engine
        self._notes = notes
        self._known = known or {}
        self._mentioned: dict[tuple[str, int], frozenset[str]] = {}
        """By (uid, generation) of a Policy: a generation has one spec."""

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``Check``."""
        if asked.kind not in _KINDS or _only_stops(asked):
            return Outcome()
        concerned = [
            policy for policy in self._policies.within(asked.namespace, SYSTEM_NAMESPACE) if _about(policy, asked.kind)
        ]
        if not concerned:
            return Outcome()
        nearby = Nearby(self._known, reads)
        request = await _request(asked, nearby, frozenset().union(*map(self._needs, concerned)))
        decision = await self._engine.decide(concerned, request)
        if decision.violations:
            self._notes.note(decision, request)
        return outcome(decision)

    def _needs(self, policy: Mapping[str, Any]) -> frozenset[str]:
        """Which of the objects that are read for it its expressions may mention."""
        metadata, spec = policy["metadata"], policy.get("spec") or {}
        if not metadata.get("uid"):
            return _EVERYTHING
        key = (str(metadata["uid"]), int(metadata.get("generation", 1)))
        if (found := self._mentioned.get(key)) is None:
            if len(self._mentioned) >= _MAX_MENTIONED:
                self._mentioned.clear()
            texts = [str(spec.get(field) or "") for field in ("variables", "matchConditions", "validations")]
            found = self._mentioned[key] = frozenset(_NAMED.findall("\n".join(texts)))
        return found


def outcome(decision: PolicyDecision) -> Outcome:
    """What the user gets to read; Kubernetes, "Validating Admission Policy", validation actions."""
    audited = [each for each in decision.violations if each.enforcement is Enforcement.AUDIT]
    return Outcome(
        violations=tuple(
            Violation(
                policy_field(each.policy_namespace, each.policy, each.rule), each.message, each.reason, each.contact
            )
            for each in decision.denied
        ),
        warnings=tuple(_warning(each) for each in decision.violations if each.enforcement is Enforcement.WARN),
        audit={"policy-violations": _annotation(audited)} if audited else {},
    )


def _warning(violation: PolicyViolation) -> str:
    said = f"{policy_field(violation.policy_namespace, violation.policy, violation.rule)}: {violation.message}"
    return f"{said}; ask {violation.contact}" if violation.contact else said


def _annotation(violations: Sequence[PolicyViolation]) -> str:
    """JSON, as ValidatingAdmissionPolicy annotates; cut to whole violations."""
    lines: list[Mapping[str, str]] = []
    size = 2
    for each in violations:
        line = {
            "policy": f"{each.policy_namespace}/{each.policy}",
            "rule": each.rule,
            "reason": each.reason,
            "message": each.message,
        }
        size += len(orjson.dumps(line)) + 1
        if size > _MAX_ANNOTATION:
            break
        lines.append(line)
    return orjson.dumps(lines).decode()


def _only_stops(asked: Asked) -> bool:
    """An UPDATE that changes nothing a Policy is asked about: annotations, finalizers, owners, `suspend`, `cancel`; or
    one of an object that is going anyway. Work that is there must stay stoppable whatever Policies say of it."""
    if asked.operation is not Operation.UPDATE or asked.old is None:
        return False
    if (asked.object.get("metadata") or {}).get("deletionTimestamp"):
        return True
    return _judged(asked.object) == _judged(asked.old)


def _judged(obj: Mapping[str, Any]) -> tuple[Any, ...]:
    metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    return metadata.get("labels") or {}, {key: value for key, value in spec.items() if key not in _STOPPING}


def _about(policy: Mapping[str, Any], kind: str) -> bool:
    """A look that is cheap and never misses: ``domain.policy.binds`` says it exactly."""
    spec = policy.get("spec") or {}
    return kind in (spec.get("match") or {}).get("kinds", ()) and Stage.ADMISSION in spec.get("stages", (kind,))


async def _request(asked: Asked, reads: Reads, needs: frozenset[str]) -> PolicyRequest:
    """With the objects above it and the Agent, as they are stored now; None where there is none (yet)."""
    spec = asked.object.get("spec") or {}
    of_task, above = asked.kind == "Task", "parent" in needs
    names = {
        "Graph": _name(spec, "graphRef") if above or "graph" in needs else None,
        "Node": _node_name(asked) if of_task and (above or "node" in needs) else None,
        "Agent": _name(spec, "agentRef") if of_task and "agent" in needs else None,
    }
    found = dict(zip(names, await asyncio.gather(*(_read(reads, asked, *item) for item in names.items())), strict=True))
    return PolicyRequest(
        stage=Stage.ADMISSION,
        operation=asked.operation.value,
        kind=asked.kind,
        namespace=asked.namespace,
        name=asked.name,
        object=asked.object,
        old_object=asked.old,
        user=asked.user,
        graph=found["Graph"],
        node=found["Node"],
        parent=found["Node"] if found["Node"] is not None else found["Graph"],
        agent=found["Agent"],
        dry_run=asked.dry_run,
    )


async def _read(reads: Reads, asked: Asked, kind: str, name: str | None) -> Mapping[str, Any] | None:
    return None if name is None else await reads.get(kind, asked.namespace, name)


def _name(spec: Mapping[str, Any], field: str) -> str | None:
    found = (spec.get(field) or {}).get("name")
    return str(found) if found else None


def _node_name(asked: Asked) -> str | None:
    """Of a Task: the Node it names, or is owned by."""
    named = _name(asked.object.get("spec") or {}, "nodeRef")
    owners = (asked.object.get("metadata") or {}).get("ownerReferences") or ()
    return named or next((str(owner["name"]) for owner in owners if owner.get("kind") == "Node"), None)
