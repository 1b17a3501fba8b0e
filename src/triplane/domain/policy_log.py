"""The log entries of violated Policies: one for each thing that was seen to be wrong, however often it was tried.

The same object, turned away twice by the same rule, is one violation: its id is made of what was violated, and
appending it again is a no-op.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from triplane.api.policy import Enforcement, Stage
from triplane.audit.digest import canonical_json, digest_of_bytes, digest_of_json
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, SYSTEM_STREAM, EventBody, EventSubject
from triplane.domain.policy import PolicyDecision, PolicyRequest
from triplane.domain.redaction import redact_json, redact_text

VIOLATED: Final = "policy.violated"
_KEY_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """One violation, with the object it was seen on."""

    policy: str
    policy_namespace: str
    policy_uid: str
    policy_generation: int
    enforcement: Enforcement
    stage: Stage
    operation: str
    kind: str
    namespace: str
    name: str
    rule: str
    reason: str
    message: str
    spec: Mapping[str, Any]
    """Of the object."""
    object_uid: str | None = None
    """At Launch; at Admission an object that is turned away never had one."""

    def documents(self) -> Mapping[str, bytes]:
        """What must be in the content store before the entry is appended, by digest: what was said, and the spec.
        Both without secrets."""
        found = (self._said(), canonical_json(redact_json(self.spec)))
        return {digest_of_bytes(octets): octets for octets in found}

    def entry(self, actor: str = SYSTEM_ACTOR) -> EventBody:
        """``policy.violated/<policy>/<generation>/<digest of what was violated>``; ``actor``: whose request it was."""
        said, spec = digest_of_bytes(self._said()), digest_of_bytes(canonical_json(redact_json(self.spec)))
        data: dict[str, Any] = {
            "enforcement": self.enforcement.value,
            "stage": self.stage.value,
            "operation": self.operation,
            "objectKind": self.kind,
            "objectNamespace": self.namespace,
            "objectName": self.name,
            "rule": self.rule,
            "reason": self.reason,
            "messageDigest": said,
            "specDigest": spec,
        }
        if self.object_uid is not None:
            data["objectUid"] = self.object_uid
        key = digest_of_json(data).partition(":")[2][:_KEY_DIGITS]
        return EventBody(
            id=event_id(VIOLATED, self.policy_uid, self.policy_generation, key),
            type=VIOLATED,
            stream=SYSTEM_STREAM,
            actor=actor,
            subject=EventSubject(
                kind="Policy",
                namespace=self.policy_namespace,
                name=self.policy,
                uid=self.policy_uid,
                generation=self.policy_generation,
            ),
            data=data,
            blobs=tuple(dict.fromkeys((said, spec))),
        )

    def _said(self) -> bytes:
        return canonical_json({"lines": [redact_text(self.message)]})


def seen(decision: PolicyDecision, request: PolicyRequest) -> tuple[Seen, ...]:
    """What of a decision is for the log: nothing of a dry run."""
    if request.dry_run:
        return ()
    uid = (request.object.get("metadata") or {}).get("uid") if request.stage is Stage.LAUNCH else None
    return tuple(
        Seen(
            policy=each.policy,
            policy_namespace=each.policy_namespace,
            policy_uid=each.policy_uid,
            policy_generation=each.policy_generation,
            enforcement=each.enforcement,
            stage=request.stage,
            operation=request.operation,
            kind=request.kind,
            namespace=request.namespace,
            name=request.name,
            rule=each.rule,
            reason=each.reason,
            message=each.message,
            spec=request.object.get("spec") or {},
            object_uid=uid,
        )
        for each in decision.violations
    )
