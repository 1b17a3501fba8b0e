"""Nobody is let in to approve their own work: a person's Review of what an Agent of theirs produced is refused.

The early word only. What counts is what the operator finds when it reads the Review (``domain.verdict``): the Agent may
be another by then, and an account of another name may belong to the same person.
"""

from collections.abc import Mapping
from typing import Any

from triplane.admission.asked import Asked, Outcome, Reads
from triplane.api.policy import Operation
from triplane.api.text import REQUESTER
from triplane.domain.admission import FORBIDDEN, Violation


class SelfReviewCheck:
    """``Check``: whoever controls the Agent that is concerned, or its Harness, gives no verdict and no leave."""

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``Check``. What does not exist, or has no Agent yet, is left to the operator."""
        spec = asked.object.get("spec") or {}
        if asked.kind != "Review" or asked.operation is not Operation.CREATE or spec.get("sessionRef"):
            return Outcome()
        task = await reads.get("Task", asked.namespace, spec["taskRef"]["name"])
        if task is None or task["metadata"].get("uid") != spec["taskRef"].get("uid"):
            return Outcome()
        name = (task.get("status") or {}).get("agent") or (task["spec"].get("agentRef") or {}).get("name")
        agent = await reads.get("Agent", asked.namespace, name) if name else None
        if agent is None:
            return Outcome()
        harness = await reads.get("Harness", asked.namespace, agent["spec"]["harnessRef"]["name"])
        who = asked.user.get("username")
        for kind, obj in (("Agent", agent), ("Harness", harness)):
            if obj is not None and _requester(obj) == who:
                said = (
                    f"{who} controls {kind} {obj['metadata']['name']}, which Task {task['metadata']['name']} is done "
                    "with: somebody else must judge it"
                )
                return Outcome((Violation("spec.taskRef", said, FORBIDDEN, _others(task)),))
        return Outcome()


def _requester(obj: Mapping[str, Any]) -> str | None:
    found = (obj["metadata"].get("annotations") or {}).get(REQUESTER)
    return None if found is None else str(found)


def _others(task: Mapping[str, Any]) -> str | None:
    people = (task["spec"].get("review") or {}).get("people") or ()
    return " or ".join(map(str, people)) or None
