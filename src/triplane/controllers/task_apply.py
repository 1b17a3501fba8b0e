"""Applies one step of a Task. Each is safe to repeat: names are deterministic, the log is asked first."""

from typing import Any

from triplane.audit.model import EventBody
from triplane.controllers.attest import Attestor
from triplane.controllers.beginning import Beginnings
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.launch import LaunchGrounds, StaleView, permit_run
from triplane.controllers.launch_policies import LaunchPolicies
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.task_children import create_child, stream_of, tell
from triplane.controllers.task_gather import Gathered
from triplane.controllers.task_limits import ask_about
from triplane.controllers.task_plan import Object
from triplane.controllers.task_review import ReviewApplier
from triplane.domain.events import session_offered, session_stopped
from triplane.domain.naming import fingerprint, object_name
from triplane.domain.session import LIVE_RUN_STATES, Offer, RunState
from triplane.domain.task_facts import (
    AcceptRound,
    Action,
    AnswerCalls,
    AnswerLaunch,
    AskLeave,
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
    StopSession,
)
from triplane.domain.task_log import (
    artifact_recorded,
    input_composed,
    task_failed,
    task_placed,
    task_skipped,
)
from triplane.domain.task_needs import dependency_names
from triplane.domain.task_outlook import REVOKE_FIRST


class TaskApplier:
    """One applier serves all Tasks."""

    def __init__(self, context: Context, observer: Observer, policies: LaunchPolicies) -> None:
        self._context = context
        self._observer = observer
        self._attestor = Attestor(context)
        self._policies = policies
        self._beginnings = Beginnings(context)
        self._reviews = ReviewApplier(context, observer)

    async def apply(self, action: Action, at: Gathered) -> None:
        """Do it; raises ``TriplaneError`` when it must be decided again or tried later."""
        match action:
            case Place():
                await self._place(action, at)
            case OpenSession():
                await self._open(action, at)
            case Launch():
                await self._launch(action, at)
            case StopSession():
                await self._end_session(action, at)
            case LineUp(session):
                await self._context.sessions.line_up(session.uid)
            case RecordArtifacts():
                await self._record_artifacts(action, at)
            case RecordAgentReview() | DecideByPerson() | AcceptRound() | AskLeave() | AnswerLaunch() | AnswerCalls():
                await self._reviews.apply(action, at)
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
        await tell(self._context, at, "Normal", reason, message, f"{placement.round}.{placement.ordinal}")

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
            "authority": plan.warrant.effective.wire(),
            "authorityDigest": plan.warrant.digest,
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
            node_uid=at.node["metadata"]["uid"] if at.node is not None else None,
        )
        body = session_offered(offer)
        if await self._context.log.get(body.id) is None:
            await self._context.log.append([body])
        await self._context.sessions.offer(offer)

    async def _launch(self, action: Launch, at: Gathered) -> None:
        view = action.session.view
        assert view is not None
        found = next(((key, item) for key, item in at.plans.items() if item.name == action.session.name), None)
        if found is None:
            raise StaleView(f"session {action.session.name} is no longer what would be frozen now; deciding again")
        key, plan = found
        run_inputs: dict[str, Any] = {"round": action.round, "findings": list(action.findings)}
        if budget := at.budgets.get(key):
            run_inputs["budget"] = dict(budget)
        placement = next(item for item in at.facts.decisions.placements if item.key == key)
        agent = next(item for item in plan.ancestors if item["metadata"]["uid"] == placement.agent_uid)
        assert at.graph is not None
        above = (at.obj, at.graph, at.node)
        question = ask_about(self._context, above, placement, agent, plan.warrant, at.facts.decisions, action.run)
        ancestors = (*plan.ancestors, at.session_objects[action.session.name])
        most = at.most_sessions.get(key, {})
        grounds = LaunchGrounds(view.offer, action.run, run_inputs, ancestors, question, most)
        await permit_run(self._context, grounds, self._policies, self._beginnings)

    async def _end_session(self, action: StopSession, at: Gathered) -> None:
        """Logged before it takes effect. The Task's next look finds the session gone, and goes on without it."""
        session = action.session
        assert session.view is not None
        digest = await self._context.store_lines([action.message])
        body = session_stopped(session.view.offer, action.reason, digest)
        if await self._context.log.get(body.id) is None:
            await self._context.log.append([body])
        await self._stop(at, session, f"{action.reason}: {action.message}")
        await tell(self._context, at, "Warning", action.reason, action.message[:1000], session.uid)

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
        await self._attestor.append_artifacts(bodies, artifacts, action, at)

    async def _skip(self, action: SkipTask, at: Gathered) -> None:
        digest = await self._context.store_lines(action.message.split("\n"))
        body = task_skipped(subject_of(at.obj), stream_of(at), action.reason, digest, action.values)
        await self._context.log.append([body])
        await tell(self._context, at, "Normal", action.reason, action.message[:1000], "1")

    async def _fail(self, action: FailTask, at: Gathered) -> None:
        if action.reason in REVOKE_FIRST:
            for session in at.facts.sessions:
                await self._stop(at, session, f"{action.reason}: {action.message}")
        digest = await self._context.store_lines(action.message.split("\n"))
        stream = stream_of(at)
        await self._context.log.append([task_failed(subject_of(at.obj), stream, action.round, action.reason, digest)])
        for item in self._context.index.children("Artifact", "task", at.obj["metadata"]["uid"]):
            self._context.enqueue(Key.of(item), 0)
        await tell(self._context, at, "Warning", action.reason, action.message[:1000], str(action.round))

    async def _stop(self, at: Gathered, session: SessionFacts, why: str) -> None:
        """No further run, and the end of the one that is at work: its runner kills the process tree."""
        if session.view is None or session.view.revoked is not None:
            return
        await self._context.sessions.revoke(session.uid, why[:1024])
        self._context.enqueue(Key("AgentSession", at.obj["metadata"]["namespace"], session.name), 0)

    async def _end_late_reviews(self, at: Gathered) -> None:
        """Reviewers of a round that another one has rejected: their verdict would decide nothing."""
        round_ = len(at.facts.decisions.rejected) + 1
        for session in at.facts.sessions:
            view = session.view
            if session.role != "reviewer" or session.round >= round_ or view is None:
                continue
            if view.revoked is not None or view.closed:
                continue
            state = view.last_run.state if view.last_run is not None else RunState.PERMITTED
            if state in LIVE_RUN_STATES:
                await self._stop(at, session, f"Rejected: round {session.round} was rejected meanwhile")
            elif state is RunState.PERMITTED:
                await self._context.sessions.close_session(session.uid)

    async def settle(self, at: Gathered) -> None:
        """The Task is over: its sessions get no further run, and what still runs is stopped. Repeated at every look,
        because a crash may have come between the decision and this; it costs nothing once done."""
        decisions = at.facts.decisions
        if not decisions.over:
            await self._end_late_reviews(at)
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
