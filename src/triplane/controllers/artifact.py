"""Artifact reconciler: says whether its round was accepted, once that is decided."""

from triplane.api.meta import Phase, Subject
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding
from triplane.domain.task_facts import Decisions


class ArtifactReconciler:
    """One status write in an Artifact's life: the decision on it, read from the log."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._status = status
        self._decisions = DecisionReader(context)

    async def reconcile(self, key: Key) -> float | None:
        """Returns None: it waits for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        decisions, _ = await self._decisions.read(obj["spec"]["taskRef"]["uid"])
        spec = obj["spec"]
        finding = judge(decisions, spec["round"], Subject(name=spec["name"], digest=spec["digest"]))
        if finding is None:
            return None
        approved = finding.status == "True"
        status = {
            "phase": (Phase.SUCCEEDED if approved else Phase.FAILED).value,
            "review": decisions.accepted_review if approved else None,
        }
        return await self._status.write(obj, status, [finding])


def judge(decisions: Decisions, round_: int, output: Subject) -> Finding | None:
    """What was decided on this output of a round; None while it is open."""
    if decisions.accepted_round == round_ and output in decisions.accepted_subjects:
        return Finding("Reviewed", "True", "Approved", f"Accepted by Review {decisions.accepted_review}")
    if round_ in decisions.rejected:
        text = "; ".join(decisions.rejected[round_])
        return Finding("Reviewed", "False", "Rejected", f"The reviewer found: {text}"[:1024])
    if decisions.accepted_round is not None:
        return Finding("Reviewed", "False", "NotAccepted", "The Task was accepted with other outputs")
    if decisions.failed is not None:
        return Finding("Reviewed", "False", "NotAccepted", f"The Task ended without it: {decisions.failed[0]}")
    return None
