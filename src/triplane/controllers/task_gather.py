"""Reads everything a Task's decision needs: the log's decisions, the index, the session store, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from triplane.api.capability import Capability
from triplane.api.meta import Subject
from triplane.api.review import Review
from triplane.api.task import Task
from triplane.audit.entry import event_id
from triplane.audit.model import Recorded
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.observe import Observer, requester_of
from triplane.controllers.task_plan import Object, SessionPlan, SessionPlanner
from triplane.controllers.task_references import References
from triplane.domain.eligibility import Candidate
from triplane.domain.session import Outcome, RunState, SessionView
from triplane.domain.task import in_force, instructed_by_producer, still_as_placed
from triplane.domain.task_facts import Decisions, SessionFacts, TaskFacts
from triplane.domain.verdict import PersonReview, VerdictFile, VerdictVoid, read_verdict
from triplane.domain.workorder import (
    ContractConflict,
    ResolvedInput,
    effective_outputs,
    inputs_of,
    outputs_of,
)
from triplane.errors import BlobMissing, Corrupt, TooLarge


@dataclass(frozen=True)
class Gathered:
    """The facts, and the objects behind them that applying a step needs."""

    facts: TaskFacts
    obj: Object
    graph: Object | None
    node: Object | None
    plans: Mapping[tuple[str, int, int], SessionPlan] = field(default_factory=dict)
    session_objects: Mapping[str, Object] = field(default_factory=dict)


class TaskGatherer:
    """One gatherer serves all Tasks."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer
        self._decisions = DecisionReader(context)
        self._references = References(context, observer, self._decisions)

    async def gather(self, obj: Object) -> Gathered:
        """Everything at once; raises ``Unavailable`` when a store cannot be read."""
        context, index = self._context, self._context.index
        task = Task.model_validate(obj)
        namespace = task.metadata.namespace
        decisions, entries = await self._decisions.read(task.metadata.uid)
        graph = index.get("Graph", namespace, task.spec.graph_ref.name)
        node = index.get("Node", namespace, task.spec.node_ref.name) if task.spec.node_ref else None
        missing: list[tuple[str, str]] = []
        over = decisions.accepted_round is not None or decisions.failed is not None
        capabilities: tuple[Capability, ...] = ()
        inputs: tuple[ResolvedInput, ...] = ()
        agents: tuple[Candidate, ...] = ()
        if not over:  # nothing of it is asked any more, and there may be ten thousand of these
            capabilities = self._references.capabilities(task, missing)
            inputs = await self._references.inputs(task, decisions, missing)
            agents = await self._references.candidates(namespace)
            self._references.check(task, graph, node, agents, missing)
        outputs = effective_outputs(task, capabilities)
        session_objects = {
            item["metadata"]["name"]: item
            for item in index.children("AgentSession", "task", task.metadata.uid)
            if not item["metadata"].get("deletionTimestamp")
        }
        views = await context.sessions.get_many([o["metadata"]["uid"] for o in session_objects.values()])
        wanted = await self._wanted(views)
        bare = [_session(item, views.get(item["metadata"]["uid"]), wanted) for item in session_objects.values()]
        produced = _produced(bare, decisions)
        sessions = tuple([await self._with_verdict(session, produced) for session in bare])
        producer = decisions.latest("producer", len(decisions.rejected) + 1)
        at_work = in_force(sessions, producer) if producer is not None else None
        if at_work is not None and at_work.view is not None:
            # It goes by its own work order, and so does its review: what it refers to may be edited or deleted.
            order = at_work.view.offer.work_order
            inputs, outputs, missing = inputs_of(order), outputs_of(order), []
        withdrawn = None if over else await self._withdrawn(task, graph, node, entries)
        graph = graph or index.get("Graph", namespace, task.spec.graph_ref.name)  # the check may have found it
        instructions = None if over else await self._references.instructions_principal(task)
        usable = [
            item
            for item in decisions.placements
            if still_as_placed(item, agents)
            and not (item.role == "reviewer" and instructed_by_producer(producer, instructions))
        ]
        plans = {}
        if graph is not None and not missing and not isinstance(outputs, ContractConflict):
            planner = SessionPlanner(task, obj, graph, node, capabilities, inputs, outputs, index)
            for placement in usable:
                if plan := planner.plan(placement, produced):
                    plans[placement.key] = plan
        facts = TaskFacts(
            task=task,
            missing=tuple(missing),
            withdrawn=withdrawn,
            inputs=inputs,
            outputs=outputs,
            agents=agents,
            decisions=decisions,
            sessions=sessions,
            expected_session={key: plan.name for key, plan in plans.items()},
            artifacts=await self._recorded(sessions),
            people_reviews=await self._people_reviews(task),
            instructions_principal=instructions,
        )
        return Gathered(facts, obj, graph, node, plans, session_objects)

    async def _wanted(self, views: Mapping[str, SessionView]) -> frozenset[str]:
        expired = any(
            view.last_run is not None and view.last_run.state is RunState.PERMITTED and view.last_run.permit_expired
            for view in views.values()
        )
        return frozenset(await self._context.sessions.wanted()) if expired else frozenset()

    async def _recorded(self, sessions: Sequence[SessionFacts]) -> frozenset[tuple[str, int, str]]:
        """Outputs whose Artifact is in the log; an Artifact object alone may be all that a crash left of the step."""
        ids = {
            event_id("artifact.recorded", session.uid, run.run, output.name): (session.uid, run.run, output.name)
            for session in sessions
            if session.role == "producer" and session.view is not None
            for run in session.view.runs
            if run.result is not None and run.result.outcome is Outcome.SUCCEEDED
            for output in run.result.outputs
        }
        found = await self._context.log.get_many(list(ids)) if ids else {}
        return frozenset(ids[id_] for id_ in found)

    async def _with_verdict(self, session: SessionFacts, produced: Mapping[int, tuple[Subject, ...]]) -> SessionFacts:
        if session.role != "reviewer" or session.view is None:
            return session
        return replace(session, verdict=await self._verdict(session.view, produced.get(session.round, ())))

    async def _verdict(self, view: SessionView, produced: Sequence[Subject]) -> VerdictFile | VerdictVoid | None:
        run = view.last_run
        if run is None or run.result is None or run.result.outcome is not Outcome.SUCCEEDED:
            return None
        digest = next((output.digest for output in run.result.outputs if output.name == "verdict"), None)
        if digest is None:
            return VerdictVoid("VerdictMissing", "the review session left no verdict")
        try:
            document = await self._context.load_json(digest)
        except (TooLarge, BlobMissing, Corrupt) as error:
            return VerdictVoid("VerdictMissing", f"the verdict cannot be read: {error}")
        assert isinstance(document, dict)  # the gateway checked it against VERDICT_SCHEMA
        return read_verdict(document, produced)

    async def _people_reviews(self, task: Task) -> tuple[PersonReview, ...]:
        found = []
        for obj in self._context.index.children("Review", "task", task.metadata.uid):
            review = Review.model_validate(obj)
            if review.spec.session_ref is not None or review.metadata.namespace != task.metadata.namespace:
                continue
            found.append(
                PersonReview(
                    name=review.metadata.name,
                    uid=review.metadata.uid,
                    username=requester_of(obj),
                    principal=await self._observer.principal_of(obj),
                    round=review.spec.round,
                    verdict=review.spec.verdict,
                    findings=tuple(review.spec.findings),
                    subjects=tuple(review.spec.subjects),
                )
            )
        return tuple(found)

    async def _withdrawn(
        self, task: Task, graph: Object | None, node: Object | None, entries: Sequence[Recorded]
    ) -> tuple[str, str] | None:
        """Work that has begun ends when the Graph or Node it began under is gone; asked of the API server
        itself, because a lagging index must not cancel anything."""
        if not entries:
            return None
        begun = str(entries[0].entry["stream"]).removeprefix("graph/")
        name = task.spec.graph_ref.name
        if graph is None or graph["metadata"]["uid"] != begun or graph["metadata"].get("deletionTimestamp"):
            now = await self._context.cluster.get("Graph", task.metadata.namespace, name)
            if now is None or now["metadata"]["uid"] != begun or now["metadata"].get("deletionTimestamp"):
                return "GraphDeleted", f"Graph {name}, under which this work began, was deleted"
            self._context.index.put(now)
        if task.spec.node_ref is not None and node is None:
            name = task.spec.node_ref.name
            now = await self._context.cluster.get("Node", task.metadata.namespace, name)
            if now is None:
                return "NodeDeleted", f"Node {name}, whose step this is, was deleted"
            self._context.index.put(now)
        return None


def _session(obj: Object, view: SessionView | None, wanted: frozenset[str]) -> SessionFacts:
    spec, metadata = obj["spec"], obj["metadata"]
    return SessionFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        role=spec["role"].lower(),
        round=spec["round"],
        agent_uid=spec["agentRef"]["uid"],
        view=view,
        wanted=metadata["uid"] in wanted,
    )


def _produced(sessions: Sequence[SessionFacts], decisions: Decisions) -> dict[int, tuple[Subject, ...]]:
    """Round to the outputs of its producing run: of the session the decision follows, of no other."""
    produced = {}
    for round_ in {placement.round for placement in decisions.placements}:
        placement = decisions.latest("producer", round_)
        session = in_force(sessions, placement) if placement is not None else None
        for run in session.view.runs if session is not None and session.view is not None else ():
            if run.run_inputs.get("round") == round_ and run.result and run.result.outcome is Outcome.SUCCEEDED:
                produced[round_] = tuple(
                    Subject(name=output.name, digest=output.digest) for output in run.result.outputs
                )
    return produced
