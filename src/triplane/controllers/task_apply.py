"""Applies one step of a Task. Each is safe to repeat: names are deterministic, the log is asked first."""

from typing import Any

from triplane.api.meta import Subject, Verdict
from triplane.audit.model import EventBody
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.launch import StaleView, permit_run
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.task_children import create_child, create_review, stream_of
from triplane.controllers.task_gather import Gathered
from triplane.controllers.task_plan import Object
from triplane.domain.events import session_offered
from triplane.domain.naming import fingerprint, object_name
from triplane.domain.session import LIVE_RUN_STATES, Offer
from triplane.domain.task_facts import (
    Action,
    ComposeInputs,
    DecideByPerson,
    FailTask,
    Launch,
    LineUp,
    OpenSession,
    Place,
    RecordAgentReview,
    RecordArtifacts,
    SessionFacts,
    SkipTask,
)
from triplane.domain.task_log import (
    ReviewFacts,
    artifact_recorded,
    input_composed,
    review_recorded,
    task_accepted,
    task_failed,
    task_placed,
    task_rejected,
    task_skipped,
)
from triplane.domain.task_needs import dependency_names
from triplane.domain.task_outlook import REVOKE_FIRST
from triplane.domain.verdict import VerdictFile
from triplane.errors import Conflict
from triplane.ports import KubeEvent


class TaskApplier:
    """One applier serves all Tasks."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer

    async def apply(self, action: Action, at: Gathered) -> None:
        """Do it; raises ``TriplaneError`` when it must be decided again or tried later."""
        match action:
            case Place():
                await self._place(action, at)
            case OpenSession():
                await self._open(action, at)
            case Launch():
                await self._launch(action, at)
            case LineUp(session):
                await self._context.sessions.line_up(session.uid)
            case RecordArtifacts():
                await self._record_artifacts(action, at)
            case RecordAgentReview():
                await self._record_agent_review(action, at)
            case DecideByPerson():
                await self._decide_by_person(action, at)
            case ComposeInputs():
                await self._compose(action, at)
            case SkipTask():
                await self._skip(action, at)
            case FailTask():
                await self._fail(action, at)

    async def _place(self, action: Place, at: Gathered) -> None:
        assert at.graph is not None
        above = [at.graph] if at.node is None else [at.graph, at.node]
        await self._observer.observe_many([*above, at.obj], stream=stream_of(at))
        placement = action.placement
        producer = placement.role == "producer"
        placed = task_placed(
            subject_of(at.obj),
            stream_of(at),
            placement,
            owner_uid=above[-1]["metadata"]["uid"] if producer else None,
            depends_on=self._dependencies(at) if producer else (),
        )
        await self._context.log.append([placed])
        if placement.role == "producer":
            reason, message = "Placed", f"Round {placement.round}: agent {placement.agent_name} does the work"
        else:
            reason, message = (
                "ReviewPlaced",
                f"Round {placement.round}: agent {placement.agent_name} reviews the outputs",
            )
        await self._emit(at, "Normal", reason, message, f"{placement.round}.{placement.ordinal}")

    def _dependencies(self, at: Gathered) -> list[str]:
        """UIDs of the Tasks it waited for, as far as they are known."""
        namespace = at.obj["metadata"]["namespace"]
        found = (self._context.index.get("Task", namespace, name) for name in dependency_names(at.facts.task))
        waited = {item.uid for item in at.facts.dependencies if item.uid}
        return sorted(waited | {task["metadata"]["uid"] for task in found if task is not None})

    async def _compose(self, action: ComposeInputs, at: Gathered) -> None:
        """The contents first: an entry never names a blob that was not stored."""
        bodies: list[EventBody] = []
        for item in action.compositions:
            await self._store(at, item.octets)
            bodies += input_composed(subject_of(at.obj), stream_of(at), item)
        await self._context.log.append(bodies)

    async def _store(self, at: Gathered, octets: bytes) -> None:
        """What was made in this namespace may be used in it."""
        digest = await self._context.content.store(octets)
        await self._context.sessions.own_blob(at.obj["metadata"]["namespace"], digest)

    async def _open(self, action: OpenSession, at: Gathered) -> None:
        placement = action.placement
        plan = at.plans[placement.key]
        task, graph = at.obj["metadata"], at.graph
        assert graph is not None
        earlier = [
            session.name
            for session in at.facts.sessions
            if (session.role, session.agent_uid) == (placement.role, placement.agent_uid)
            and session.name != plan.name
            and placement.role == "producer"
        ]
        spec: dict[str, Any] = {
            "taskRef": {"name": task["name"], "uid": task["uid"]},
            "agentRef": {"name": placement.agent_name, "uid": placement.agent_uid},
            "role": placement.role.capitalize(),
            "round": placement.round,
            "snapshotDigest": plan.digest,
            "snapshot": [material.wire() for material in plan.snapshot],
        }
        if earlier:
            spec["continues"] = earlier[-1]
        session = await create_child(self._context, "AgentSession", plan.name, spec, at)
        uid = session["metadata"]["uid"]
        await self._observer.observe_many([*plan.ancestors, session], stream=stream_of(at))
        for item in at.facts.task.spec.inputs or ():
            if item.value is not None:
                await self._store(at, item.value.encode())
        offer = Offer(
            session_uid=uid,
            namespace=task["namespace"],
            name=plan.name,
            task_uid=task["uid"],
            graph_uid=graph["metadata"]["uid"],
            agent_uid=placement.agent_uid,
            agent_name=placement.agent_name,
            role=placement.role,
            snapshot_digest=plan.digest,
            work_order=plan.order,
        )
        body = session_offered(offer)
        if await self._context.log.get(body.id) is None:
            await self._context.log.append([body])
        await self._context.sessions.offer(offer)

    async def _launch(self, action: Launch, at: Gathered) -> None:
        view = action.session.view
        assert view is not None
        plan = next((item for item in at.plans.values() if item.name == action.session.name), None)
        if plan is None:
            raise StaleView(f"session {action.session.name} is no longer what would be frozen now; deciding again")
        ancestors = [*plan.ancestors, at.session_objects[action.session.name]]
        run_inputs = {"round": action.round, "findings": list(action.findings)}
        await permit_run(self._context, view.offer, action.run, run_inputs, ancestors)

    async def _record_artifacts(self, action: RecordArtifacts, at: Gathered) -> None:
        session, run = action.session, action.run
        assert run.result is not None
        assert session.view is not None
        inputs = [
            {"name": item["name"], "digest": item["digest"]} for item in session.view.offer.work_order.get("inputs", ())
        ]
        bodies: list[EventBody] = []
        artifacts: list[Object] = []
        for output in run.result.outputs:
            spec = {
                "name": output.name,
                "digest": output.digest,
                "mediaType": output.media_type,
                "size": output.size,
                "taskRef": {"name": at.obj["metadata"]["name"], "uid": at.obj["metadata"]["uid"]},
                "sessionRef": {"name": session.name, "uid": session.uid},
                "run": run.run,
                "round": action.round,
                "materials": inputs,
            }
            tag = fingerprint(session.uid, str(run.run), output.name, output.digest)
            name = object_name(at.obj["metadata"]["name"], output.name, tag)
            artifact = await create_child(self._context, "Artifact", name, spec, at)
            artifacts.append(artifact)
            body = artifact_recorded(subject_of(artifact), stream_of(at), session.uid, run.run, action.round, output)
            bodies.append(body)
        await self._observer.observe_many(artifacts, stream=stream_of(at))
        # These entries last: they say that this step is done, edges included.
        recorded = await self._context.log.get_many([body.id for body in bodies])
        if missing := [body for body in bodies if body.id not in recorded]:
            await self._context.log.append(missing)

    async def _record_agent_review(self, action: RecordAgentReview, at: Gathered) -> None:
        session, verdict = action.session, action.verdict
        assert session.view is not None
        offer = session.view.offer
        spec = {
            "taskRef": {"name": at.obj["metadata"]["name"], "uid": at.obj["metadata"]["uid"]},
            "round": action.round,
            "verdict": verdict.verdict.value,
            "subjects": [subject.wire() for subject in verdict.subjects],
            "findings": list(verdict.findings),
            "sessionRef": {"name": session.name, "uid": session.uid},
            "agentRef": {"name": offer.agent_name, "uid": offer.agent_uid},
        }
        name = object_name(
            at.obj["metadata"]["name"], f"review-{action.round}", fingerprint(session.uid, str(action.round))
        )
        review = await create_review(self._context, name, spec, at)
        await self._observer.observe(review, stream=stream_of(at))
        reviewer = next((a for a in at.facts.agents if a.uid == offer.agent_uid), None)
        principal = reviewer.principal if reviewer is not None else None
        if principal is None:
            principal = next(
                (p.principal for p in at.facts.decisions.placements if p.agent_uid == offer.agent_uid), None
            )
        facts = ReviewFacts(
            review["metadata"]["name"], review["metadata"]["uid"], principal, session.uid, offer.agent_uid
        )
        await self._decide(action.round, verdict, facts, review, at)

    async def _decide_by_person(self, action: DecideByPerson, at: Gathered) -> None:
        person = action.review
        obj = self._context.index.by_uid(person.uid)
        if obj is None:
            raise Conflict(f"Review {person.name} is gone; deciding again without it")
        await self._observer.observe(obj, stream=stream_of(at))
        facts = ReviewFacts(person.name, person.uid, person.principal)
        said = VerdictFile(person.verdict, person.findings, person.subjects)
        await self._decide(action.round, said, facts, obj, at)

    async def _decide(self, round_: int, said: VerdictFile, facts: ReviewFacts, review: Object, at: Gathered) -> None:
        """Log the verdict and, after it, the decision; both in one append, so never the second alone."""
        stream, subject = stream_of(at), subject_of(at.obj)
        judged = [
            item
            for item in self._context.index.children("Artifact", "task", subject.uid)
            if Subject(name=item["spec"]["name"], digest=item["spec"]["digest"]) in said.subjects
            and item["spec"]["round"] == round_
        ]
        actor = facts.principal or "system"
        uids = [item["metadata"]["uid"] for item in judged]
        recorded = review_recorded(subject_of(review), stream, actor, facts, said.verdict, said.subjects, uids)
        bodies = [] if await self._context.log.get(recorded.id) is not None else [recorded]
        if said.verdict is Verdict.APPROVE:
            bodies.append(task_accepted(subject, stream, round_, facts, said.subjects))
        else:
            digest = await self._context.store_lines(said.findings)
            bodies.append(task_rejected(subject, stream, round_, facts, digest, len(said.findings)))
        await self._context.log.append(bodies)
        for item in judged:
            self._context.enqueue(Key.of(item), 0)
        if said.verdict is Verdict.APPROVE:
            await self._emit(at, "Normal", "Accepted", f"Review {facts.name} approved round {round_}", str(round_))
        else:
            text = f"Review {facts.name} rejected round {round_}: {'; '.join(said.findings)}"
            await self._emit(at, "Warning", "Rejected", text[:1000], str(round_))

    async def _skip(self, action: SkipTask, at: Gathered) -> None:
        digest = await self._context.store_lines(action.message.split("\n"))
        body = task_skipped(subject_of(at.obj), stream_of(at), action.reason, digest, action.values)
        await self._context.log.append([body])
        await self._emit(at, "Normal", action.reason, action.message[:1000], "1")

    async def _fail(self, action: FailTask, at: Gathered) -> None:
        if action.reason in REVOKE_FIRST:
            for session in at.facts.sessions:
                await self._stop(at, session, f"{action.reason}: {action.message}")
        digest = await self._context.store_lines(action.message.split("\n"))
        stream = stream_of(at)
        await self._context.log.append([task_failed(subject_of(at.obj), stream, action.round, action.reason, digest)])
        for item in self._context.index.children("Artifact", "task", at.obj["metadata"]["uid"]):
            self._context.enqueue(Key.of(item), 0)
        await self._emit(at, "Warning", action.reason, action.message[:1000], str(action.round))

    async def _stop(self, at: Gathered, session: SessionFacts, why: str) -> None:
        """No further run, and the end of the one that is at work: its runner kills the process tree."""
        if session.view is None or session.view.revoked is not None:
            return
        await self._context.sessions.revoke(session.uid, why[:1024])
        self._context.enqueue(Key("AgentSession", at.obj["metadata"]["namespace"], session.name), 0)

    async def settle(self, at: Gathered) -> None:
        """The Task is over: its sessions get no further run, and what still runs is stopped. Repeated at every look,
        because a crash may have come between the decision and this; it costs nothing once done."""
        decisions = at.facts.decisions
        if not decisions.over:
            return
        why = ": ".join(decisions.failed) if decisions.failed else "Accepted: the Task was accepted without it"
        for session in at.facts.sessions:
            view = session.view
            if view is None or view.revoked is not None:
                continue
            if view.last_run is not None and view.last_run.state in LIVE_RUN_STATES:
                await self._stop(at, session, why)
            elif not view.closed:
                await self._context.sessions.close_session(session.uid)

    async def _emit(self, at: Gathered, type_: str, reason: str, message: str, key: str) -> None:
        await self._context.cluster.emit(
            KubeEvent(
                regarding=at.obj,
                type=type_,
                reason=reason,
                message=message,
                key=f"{at.obj['metadata']['uid']}/{reason}/{key}",
            )
        )
