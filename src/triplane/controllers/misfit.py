"""An object that a release with other rules stored, and that this one cannot read: it says so and waits.

Trying again would read the same. An edit wakes it, and another release looks at everything anew.
"""

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from triplane.api.meta import PHASE_OF, State, WaitingReason
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.status import StatusWriter
from triplane.domain import node_status, task_outlook
from triplane.domain.conditions import Finding, condition, progress_findings

REASON = "SpecInvalid"


class Misfits:
    """Tells of the objects that cannot be read."""

    def __init__(self, context: Context, status: StatusWriter) -> None:
        self._context = context
        self._status = status

    async def tell(self, key: Key, error: ValidationError) -> float | None:
        """``Stalled`` with the first field that is wrong; what was decided for good is left as it is."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None:
            return None
        before = obj.get("status") or {}
        ended = condition(before, "Succeeded")
        if ended is not None and ended["status"] != "Unknown":
            return None
        fields = {name: before[name] for name in before if name not in _SET}
        if key.kind in ("Task", "Node"):
            fields |= {
                "phase": PHASE_OF[State.BLOCKED].value,
                "state": State.BLOCKED.value,
                "waitingReason": WaitingReason.HUMAN_INPUT.value,
            }
        return await self._status.write(obj, fields, FINDINGS[key.kind](_message(key.kind, error)))


_SET = frozenset({"conditions", "observedGeneration", "requestedAt", "nextRunAt"})


def _message(kind: str, error: ValidationError) -> str:
    """Which field, and whose: what an object names is read with it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    whose = "it was" if error.title == kind else f"a {error.title} that it goes by was"
    message = f"{field}: {first['msg']}: {whose} stored by a release with other rules. Correct it, or make it anew"
    return message[:1024]


def _of_task(message: str) -> Sequence[Finding]:
    return task_outlook.blocked(REASON, message).findings()


def _of_node(message: str) -> Sequence[Finding]:
    return node_status.blocked(REASON, message).findings


def _of_ready(message: str) -> Sequence[Finding]:
    return (Finding("Ready", "False", REASON, message), *progress_findings(working=None, stalled=(REASON, message)))


FINDINGS: Mapping[str, Callable[[str], Sequence[Finding]]] = {
    "Task": _of_task,
    "Node": _of_node,
    "Workflow": _of_ready,
    "Tool": _of_ready,
    "Capability": _of_ready,
}
"""Kind → its conditions; a kind that is not here is read without a model."""
