"""Policy: is it usable, whom does its change concern, and what was violated lately; and the log of violations.

The change itself binds without us: every launch reads Policies anew. What is done here is to take back the permits that
were given before it, and to have the Tasks it may concern looked at again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from triplane.api.policy import MAX_SHOWN_VIOLATIONS, Policy
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.audit.model import SYSTEM_ACTOR, EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.pace import Pace
from triplane.controllers.ready import USABLE
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding, condition, progress_findings
from triplane.domain.policy import PolicyDecision, PolicyProblem, PolicyRequest
from triplane.domain.policy_log import VIOLATED, seen
from triplane.errors import BlobMissing, Corrupt

WOKEN_PER_SECOND: Final = 200
"""Tasks looked at again after a change; those with a run first."""
MESSAGE: Final = 256
_PAGE: Final = 1000
_INVALID: Final = "PolicyInvalid"


class PolicyReconciler:
    """Sets ``Ready``, and sums up the violations in the log about once a second."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        self._pace = Pace(context.clock)
        self._checked: dict[str, tuple[int, Sequence[PolicyProblem]]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None:
            return None
        if not self._observer.has_seen(obj):
            # Before it is logged: whoever dies in between does it again.
            await self.spread(obj)
            await self._observer.observe(obj)
        if obj["metadata"].get("deletionTimestamp"):
            return None
        uid = obj["metadata"]["uid"]
        if (left := self._pace.left(uid)) > 0:
            return left
        summed = await self._summed(obj)
        problems = await self._problems(obj)
        told = f"{problems[0].field}: {problems[0].message}" if problems else ""
        if len(problems) > 1:
            told += f" (and {len(problems) - 1} more)"
        ready = Finding("Ready", "False", _INVALID, told) if problems else USABLE
        stalled = (_INVALID, told) if problems else None
        again = await self._status.write(obj, summed, [ready, *progress_findings(working=None, stalled=stalled)])
        self._pace.note(uid)
        return again

    async def spread(self, obj: Mapping[str, Any]) -> None:
        """The Policy came, changed or went: void the permits given before, and look at the Tasks in its reach again."""
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        reach = None if namespace == SYSTEM_NAMESPACE else namespace
        await self._context.sessions.void_permits(reach, f"PolicyChanged: Policy {namespace}/{name} was changed")
        open_tasks = [task for task in self._context.index.list("Task", reach) if not _over(task)]
        open_tasks.sort(key=lambda task: not _running(task))
        for place, task in enumerate(open_tasks):
            self._context.enqueue(Key.of(task), place / WOKEN_PER_SECOND)

    def forget(self, uid: str) -> None:
        """The Policy is gone."""
        self._pace.forget(uid)
        self._checked.pop(uid, None)

    async def _problems(self, obj: Mapping[str, Any]) -> Sequence[PolicyProblem]:
        """Asked once for each generation: compiling is what takes time."""
        uid, generation = obj["metadata"]["uid"], obj["metadata"].get("generation", 1)
        known = self._checked.get(uid)
        if known is None or known[0] != generation:
            try:
                found = await self._context.policies.problems(Policy.model_validate(obj).spec)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False, include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                found = [PolicyProblem(field, f"{first['msg']}: a release with other rules stored it. Correct it")]
            known = self._checked[uid] = (generation, found)
        return known[1]

    async def _summed(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """The count and the latest: what the status says, and what the log has beyond it."""
        before = obj.get("status") or {}
        latest: list[Mapping[str, Any]] = list(before.get("violations") or ())
        count, after = int(before.get("violationCount") or 0), int(latest[0]["seq"]) if latest else -1
        where = EventFilter(types=frozenset({VIOLATED}), uid=obj["metadata"]["uid"])
        new: list[Recorded] = []
        while True:
            page = await self._context.log.query(where, after=after, limit=_PAGE)
            count += len(page)
            new = [*new, *page][-MAX_SHOWN_VIOLATIONS:]
            if len(page) < _PAGE:
                break
            after = page[-1].seq
        shown = await asyncio.gather(*(self._shown(entry) for entry in reversed(new)))
        return {"violationCount": count, "violations": [*shown, *latest][:MAX_SHOWN_VIOLATIONS]}

    async def _shown(self, recorded: Recorded) -> dict[str, Any]:
        data = recorded.entry["data"]
        try:
            said = " ".join(await self._context.load_lines(data["messageDigest"]))
        except (BlobMissing, Corrupt):
            said = "(the text is no longer in the content store)"
        return {
            "time": recorded.entry["time"],
            "stage": data["stage"],
            "enforcement": data["enforcement"],
            "kind": data["objectKind"],
            "namespace": data["objectNamespace"],
            "name": data["objectName"],
            "message": said if len(said) <= MESSAGE else f"{said[: MESSAGE - 1]}…",
            "seq": recorded.seq,
        }


async def record_violations(
    context: Context, decision: PolicyDecision, request: PolicyRequest, *, actor: str = SYSTEM_ACTOR
) -> None:
    """All violations of the decision are in the log when this returns; those of a dry run never. Again: no change."""
    bodies = {body.id: (each, body) for each in seen(decision, request) for body in [each.entry(actor)]}
    if not bodies:
        return
    recorded = await context.log.get_many(list(bodies))
    missing = [pair for id_, pair in bodies.items() if id_ not in recorded]
    documents = {digest: octets for each, _ in missing for digest, octets in each.documents().items()}
    await asyncio.gather(*(context.content.store(octets) for octets in documents.values()))
    if missing:
        await context.log.append([body for _, body in missing])


def _over(task: Mapping[str, Any]) -> bool:
    found = condition(task.get("status"), "Succeeded")
    return found is not None and found["status"] != "Unknown"


def _running(task: Mapping[str, Any]) -> bool:
    return (task.get("status") or {}).get("phase") in ("Running", "Reviewing")
