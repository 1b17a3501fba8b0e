"""Task reconciler: observe, then step by step until there is only waiting, then say so in status."""

from typing import Any

from triplane.api.meta import PHASE_OF, Gate
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.launch_policies import LaunchPolicies
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.status import StatusWriter
from triplane.controllers.task_apply import TaskApplier
from triplane.controllers.task_gather import Gathered, TaskGatherer
from triplane.domain.events import graph_stream
from triplane.domain.task import decide
from triplane.domain.task_facts import Plan, TaskFacts
from triplane.domain.task_log import task_stalled
from triplane.domain.task_outlook import Leave
from triplane.domain.task_runs import to_show
from triplane.domain.task_tally import tally
from triplane.ports import KubeEvent

INPUT_SECONDS = 5.0
"""How often a missing input is looked for: the content store tells nobody what has arrived."""
MAX_STEPS = 12
"""Steps taken in one go before other keys get their turn."""


class TaskReconciler:
    """Orchestrates one Task: places, opens sessions, launches runs, records outputs, decides rounds."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status
        policies = LaunchPolicies(context)
        self._gatherer = TaskGatherer(context, observer, policies)
        self._applier = TaskApplier(context, observer, policies)

    async def reconcile(self, key: Key) -> float | None:
        """Returns seconds until it wants to be called again, None to wait for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        graph = self._context.index.get("Graph", key.namespace, obj["spec"]["graphRef"]["name"])
        stream = graph_stream(graph["metadata"]["uid"]) if graph is not None else "system"
        await self._observer.observe(obj, stream=stream)
        for _ in range(MAX_STEPS):
            at = await self._gatherer.gather(obj)
            plan = decide(at.facts)
            if plan.action is None:
                return await self._wait(key, at, plan)
            await self._applier.apply(plan.action, at)
        return 0.0

    async def _wait(self, key: Key, at: Gathered, plan: Plan) -> float | None:
        await self._applier.settle(at)
        leave = plan.outlook.leave
        gated = leave is not None and leave[0].gate is Gate.LAUNCH
        await self._pass_over(at, barred=gated or plan.outlook.stalled is not None)
        if plan.outlook.stalled is not None:
            await self._note_stall(at, plan)
        again = await self._status.write(
            at.obj, self._render(at, plan), plan.outlook.findings(), transient=plan.outlook.transient
        )
        self._context.enqueue(Key("Graph", key.namespace, at.obj["spec"]["graphRef"]["name"]), 1.0)
        if (ref := at.obj["spec"].get("nodeRef")) is not None:
            self._context.enqueue(Key("Node", key.namespace, ref["name"]), 0.0)
        absent = any(reason == "InputNotStored" for reason, _ in at.facts.missing)
        return min(filter(None, (again, plan.after, INPUT_SECONDS if absent else None)), default=None)

    async def _pass_over(self, at: Gathered, *, barred: bool) -> None:
        """What was asked for but not now: others may go first. And a permit that was given before the Task was
        suspended or barred, or leave to launch was asked for: nobody takes it any more."""
        for session in at.facts.sessions:
            view = session.view
            if view is None:
                continue
            permitted = view.in_line and view.last_run is not None
            if view.wanted or ((at.facts.suspended or barred) and permitted):
                await self._context.sessions.pass_over(session.uid)

    async def _note_stall(self, at: Gathered, plan: Plan) -> None:
        """Once per generation and reason: in the log, and as an Event for people."""
        assert plan.outlook.stalled is not None
        reason, message = plan.outlook.stalled
        subject = subject_of(at.obj)
        stream = graph_stream(at.graph["metadata"]["uid"]) if at.graph is not None else "system"
        body = task_stalled(subject, stream, reason)
        if await self._context.log.get(body.id) is None:
            await self._context.log.append([body])
            await self._context.cluster.emit(KubeEvent(at.obj, "Warning", reason, message[:1000], body.id))

    def _render(self, at: Gathered, plan: Plan) -> dict[str, Any]:
        facts, outlook = at.facts, plan.outlook
        decisions = facts.decisions
        round_ = max((item.round for item in decisions.placements), default=0)
        producer = decisions.latest("producer", round_)
        reviewer = decisions.latest("reviewer", round_)
        findings = decisions.rejected.get(round_) or decisions.rejected.get(round_ - 1) or ()
        outputs = self._outputs(at, round_)
        session, review_session = to_show(facts.sessions, producer), to_show(facts.sessions, reviewer)
        return {
            "phase": PHASE_OF[outlook.state].value,
            "state": outlook.state.value,
            "waitingReason": outlook.waiting.value if outlook.waiting is not None else None,
            "agent": producer.agent_name if producer is not None else None,
            "session": session.name if session is not None else None,
            "reviewer": outlook.reviewer[:1024] if outlook.reviewer else reviewer.agent_name if reviewer else None,
            "reviewSession": review_session.name if review_session is not None else None,
            "round": round_,
            "nextRunAt": outlook.next_run_at,
            "outputs": outputs,
            "artifact": outputs[0]["digest"].removeprefix("sha256:")[:12] if outputs else None,
            "findings": [line[:256] for line in findings],
            "approval": _gate_status(outlook.leave[0]) if outlook.leave is not None else None,
            "approvals": _approvers(facts, round_),
            **tally(facts),
        }

    def _outputs(self, at: Gathered, round_: int) -> list[dict[str, Any]]:
        artifacts = self._context.index.children("Artifact", "task", at.facts.task.metadata.uid)
        return [
            {
                "name": item["spec"]["name"],
                "digest": item["spec"]["digest"],
                "artifact": item["metadata"]["name"],
            }
            for item in sorted(artifacts, key=lambda item: str(item["spec"]["name"]))
            if item["spec"]["round"] == round_
        ]


def _gate_status(leave: Leave) -> dict[str, Any]:
    return {
        "gate": leave.gate.value,
        "subjects": [subject.wire() for subject in leave.subjects],
        "people": list(leave.people),
        "since": leave.since,
        "until": leave.until,
    }


def _approvers(facts: TaskFacts, round_: int) -> list[str]:
    """Agents by name, people by theirs; while the round is open."""
    if facts.decisions.over:
        return []
    agents = {item.agent_uid: item.agent_name for item in facts.decisions.placements}
    people = {item.uid: item.username for item in facts.people_reviews}
    names = [
        agents.get(item.agent_uid or "") or people.get(item.review_uid or "") or item.review_name
        for item in facts.decisions.approvals_of(round_)
    ]
    return [name[:1024] for name in names if name][:8]
