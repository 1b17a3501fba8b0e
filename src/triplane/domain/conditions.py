"""Conditions as Kubernetes means them: one per type, a transition time that moves only when status does.

Follows the Kubernetes API conventions ("Typical status properties") and kstatus: ``Reconciling`` and
``Stalled`` are abnormal-true.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triplane.api.meta import NEVER

MESSAGE_LIMIT = 32768
"""metav1.Condition allows no longer message; a status with one would be refused as a whole."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a decision says of one condition; ``status`` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str


def rfc3339(moment: datetime) -> str:
    """Second precision and ``Z``, as metav1.Time is written."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(
    current: Iterable[Mapping[str, Any]], findings: Sequence[Finding], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The new condition list: the findings in their order. ``lastTransitionTime`` stays while status does."""
    before = {condition["type"]: condition for condition in current}
    merged = []
    for finding in findings:
        old = before.get(finding.type)
        kept = old is not None and old.get("status") == finding.status
        since = old.get("lastTransitionTime") if kept and old is not None else None
        merged.append(
            {
                "type": finding.type,
                "status": finding.status,
                "observedGeneration": generation,
                "lastTransitionTime": rfc3339(now) if since in (None, NEVER) else since,
                "reason": finding.reason,
                "message": finding.message[:MESSAGE_LIMIT],
            }
        )
    return merged


def condition(status: Mapping[str, Any] | None, type_: str) -> Mapping[str, Any] | None:
    """The condition of that type in a status, if there is one."""
    for entry in (status or {}).get("conditions") or []:
        if entry.get("type") == type_:
            return dict(entry)
    return None


def is_true(status: Mapping[str, Any] | None, type_: str) -> bool:
    """Whether the condition of that type is True."""
    found = condition(status, type_)
    return found is not None and found.get("status") == "True"


def progress_findings(*, working: str | None, stalled: tuple[str, str] | None) -> tuple[Finding, Finding]:
    """The kstatus pair: ``Reconciling`` (with what is going on) and ``Stalled`` (with why nothing is)."""
    reconciling = (
        Finding("Reconciling", "True", "Progressing", working)
        if working is not None
        else Finding("Reconciling", "False", "Settled", "Nothing is in progress")
    )
    halted = (
        Finding("Stalled", "True", *stalled)
        if stalled is not None
        else Finding("Stalled", "False", "NotStalled", "Nothing stands in the way")
    )
    return reconciling, halted
