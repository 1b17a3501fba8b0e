"""Reads everything a Task's decision needs: the log's decisions, the index, the session store, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from triplane.api.meta import Subject
from triplane.api.task import Task
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_STREAM, Recorded
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.launch_policies import LaunchPolicies
from triplane.controllers.observe import Observer
from triplane.controllers.task_aborts import Aborts
from triplane.controllers.task_contracts import InputContracts
from triplane.controllers.task_inputs import TaskNeeds
from triplane.controllers.task_instructions import InstructionsReader
from triplane.controllers.task_limits import LimitReader
from triplane.controllers.task_people import PeopleReader
from triplane.controllers.task_plan import Object, SessionPlan, SessionPlanner
from triplane.controllers.task_references import References
from triplane.controllers.warrants import Warrants
from triplane.domain.events import graph_stream
from triplane.domain.launch import may_launch, waits_to_be_asked
from triplane.domain.retry import failure_of
from triplane.domain.session import Outcome, SessionView
from triplane.domain.task import still_as_placed
from triplane.domain.task_facts import Decisions, SessionFacts, TaskFacts
from triplane.domain.task_needs import Dependency, InputFound
from triplane.domain.task_review import instructed_by_producer
from triplane.domain.task_runs import governed, in_force
from triplane.domain.verdict import VerdictFile, VerdictVoid, read_verdict
from triplane.domain.workorder import (
    ContractConflict,
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
    budgets: Mapping[tuple[str, int, int], Mapping[str, int]] = field(default_factory=dict)
    """What is left for the next run of each placement."""
    most_sessions: Mapping[tuple[str, int, int], Mapping[str, int]] = field(default_factory=dict)
    """How many sessions may begin, for those that have not (``LaunchGrounds.most_sessions``)."""
    began_in: str | None = None
    """Stream of the Graph under which it, or its Node, began; None: it has not, or it is over."""


class TaskGatherer:
    """One gatherer serves all Tasks."""

    def __init__(self, context: Context, observer: Observer, policies: LaunchPolicies) -> None:
        self._context = context
        self._observer = observer
        self._warrants = Warrants(context.ceiling)
        self._limits = LimitReader(context, self._warrants, policies)
        self._decisions = DecisionReader(context)
        self._references = References(context, observer)
        self._needs = TaskNeeds(context, self._decisions)
        self._instructions = InstructionsReader(context, observer)
        self._contracts = InputContracts(context)
        self._aborts = Aborts(context)
        self._people = PeopleReader(context, observer)

    async def gather(self, obj: Object) -> Gathered:
        """Everything at once; raises ``Unavailable`` when a store cannot be read."""
        task = Task.model_validate(obj)
        decisions, entries = await self._decisions.read(task.metadata.uid)
        session_objects = {
            item["metadata"]["name"]: item
            for item in self._context.index.children("AgentSession", "task", task.metadata.uid)
            if not item["metadata"].get("deletionTimestamp")
        }
        uids = [item["metadata"]["uid"] for item in session_objects.values()]
        views = await self._context.sessions.get_many(uids) if uids else {}
        bare = tuple(_session(item, views.get(item["metadata"]["uid"])) for item in session_objects.values())
        index, namespace = self._context.index, task.metadata.namespace
        graph = index.get("Graph", namespace, task.spec.graph_ref.name)
        node = index.get("Node", namespace, task.spec.node_ref.name) if task.spec.node_ref else None
        at = Gathered(_over(task, decisions, bare), obj, graph, node, {}, session_objects)
        if decisions.over:  # nothing else of it is asked any more, and there may be ten thousand of these
            said = await self._people.reviews(task, _stream(graph, None))
            return replace(at, facts=replace(at.facts, people_reviews=said))
        return await self._unfinished(at, str(entries[0].entry["stream"]) if entries else None, _placed_under(entries))

    async def _unfinished(self, at: Gathered, began_in: str | None, placed_under: str | None) -> Gathered:
        """What it refers to, waits for, and would be frozen now. ``placed_under``: UID of its Node or Graph then."""
        obj, graph, node = at.obj, at.graph, at.node
        task, decisions, bare = at.facts.task, at.facts.decisions, at.facts.sessions
        namespace = task.metadata.namespace
        produced = _produced(bare, decisions)
        launchable = await self._people.with_questions(await self._launchable(graph, bare))
        sessions = tuple([await self._with_verdict(session, produced) for session in launchable])
        producer = decisions.latest("producer", len(decisions.rejected) + 1)
        at_work = in_force(sessions, producer) if producer is not None else None
        missing: list[tuple[str, str]] = []
        told = await self._instructions.read(task, missing)
        agents = await self._references.candidates(namespace)
        self._references.check(task, graph, node, agents, missing)
        needs = _Needs()
        outputs, unmet = effective_outputs(task, told.producer.lenses), told.problem
        if at_work is not None and at_work.view is not None:
            # It goes by its own work order, and so does its review: what it refers to may be edited or deleted.
            order = at_work.view.offer.work_order
            inputs, outputs, missing, unmet = inputs_of(order), outputs_of(order), [], None
        else:
            needs = await self._what_it_needs(task, _node_owner(obj), decisions, missing)
            found = {item.name: item for item in needs.found}
            begun = bool(decisions.placements)
            inputs = await self._references.inputs(task, found, missing, told.producer.files, begun=begun)
            if unmet is None and not missing:
                lenses = told.producer.lenses
                unmet = await self._contracts.unmet(task, lenses, inputs, needs.dependencies, missing)
            if unmet is None and producer is not None:
                unmet = told.selection(producer, None).problem
        # Anybody may take an owner reference away; what was logged when it began stays.
        owner = placed_under if task.spec.node_ref is not None and placed_under is not None else _node_owner(obj)
        if began_in is None and owner is not None:
            began_in = await self._aborts.began_in(owner)
        withdrawn = await self._aborts.of(task, node) or await self._withdrawn(at, owner, began_in)
        graph = graph or self._context.index.get("Graph", namespace, task.spec.graph_ref.name)  # the check may find it
        instructions = await self._references.instructions_principal(task)
        plans = {}
        if graph is not None and not missing and unmet is None and not isinstance(outputs, ContractConflict):
            dead = frozenset(item.name for item in sessions if item.view is not None and governed(item.view.revoked))
            index = self._context.index
            planner = SessionPlanner(task, obj, graph, node, told, inputs, outputs, index, self._warrants, dead)
            for placement in decisions.placements:
                instructed = placement.role == "reviewer" and instructed_by_producer(producer, instructions)
                if not still_as_placed(placement, agents) or instructed:
                    continue
                if plan := planner.plan(placement, produced, producer):
                    plans[placement.key] = plan
        recorded = await self._recorded(sessions)
        limits = await self._limits.read(obj, graph, node, decisions, sessions, plans)
        facts = replace(
            at.facts,
            missing=tuple(missing),
            withdrawn=withdrawn,
            inputs=inputs,
            outputs=outputs,
            agents=agents,
            sessions=sessions,
            expected_session={key: plan.name for key, plan in plans.items()},
            artifacts=frozenset(recorded),
            people_reviews=await self._people.reviews(task, _stream(graph, began_in)),
            produced_since=self._people.produced_since(task, recorded),
            instructions_principal=instructions,
            unmet=unmet,
            review_unmet=told.review_unmet(decisions.panel(len(decisions.rejected) + 1), producer),
            dependencies=needs.dependencies,
            cycle=needs.cycle,
            condition=needs.condition,
            found=needs.found,
            suspended=_suspended(task, graph, node),
            barred=limits.barred,
            stops=limits.stops,
            limits_after=limits.after,
            now=await self._context.sessions.now() if _waits_for_time(task, sessions) else None,
        )
        return replace(
            at, facts=facts, graph=graph, plans=plans, budgets=limits.budgets, most_sessions=limits.most_sessions,
            began_in=began_in,
        )  # fmt: skip

    async def _what_it_needs(
        self, task: Task, node_uid: str | None, decisions: Decisions, missing: list[tuple[str, str]]
    ) -> "_Needs":
        """Conditions and inputs are looked at once everything before it is settled."""
        dependencies = await self._needs.dependencies(task, node_uid)
        if not all(item.settled for item in dependencies):
            return _Needs(dependencies, cycle=self._needs.cycle(task, dependencies))
        condition = None if decisions.placements else await self._needs.condition(task, dependencies)
        if condition is not None and condition is not True:
            return _Needs(dependencies, condition=condition)
        found = await self._needs.inputs(task, dependencies, decisions.composed, missing)
        return _Needs(dependencies, condition=condition, found=found)

    async def _launchable(self, graph: Object | None, sessions: Sequence[SessionFacts]) -> Sequence[SessionFacts]:
        """A permit lives ten seconds, so a first run that no runner has asked for gets one only ahead of demand."""
        if graph is None or not any(item.view is not None and waits_to_be_asked(item.view) for item in sessions):
            return sessions
        ready = await self._context.sessions.outstanding(graph["metadata"]["uid"])
        return [replace(item, launchable=item.view is None or may_launch(item.view, ready)) for item in sessions]

    async def _recorded(self, sessions: Sequence[SessionFacts]) -> Mapping[tuple[str, int, str], Recorded]:
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
        return {ids[id_]: recorded for id_, recorded in found.items()}

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

    async def _withdrawn(self, at: Gathered, owner: str | None, began_in: str | None) -> tuple[str, str] | None:
        """Work that has begun ends when the Graph or Node it began under is gone; asked of the API server
        itself, because a lagging index must not cancel anything. ``owner`` is the UID of its Node."""
        if began_in is None:
            return None
        task, graph, node = at.facts.task, at.graph, at.node
        begun = began_in.removeprefix("graph/")
        name = task.spec.graph_ref.name
        if not _stands(graph, begun):
            now = await self._context.cluster.get("Graph", task.metadata.namespace, name)
            if now is None or not _stands(now, begun):
                return "GraphDeleted", f"Graph {name}, under which this work began, was deleted"
            self._context.index.put(now)
        if task.spec.node_ref is not None and not _stands(node, owner):
            name = task.spec.node_ref.name
            now = await self._context.cluster.get("Node", task.metadata.namespace, name)
            if now is None or not _stands(now, owner):
                return "NodeDeleted", f"Node {name}, whose step this is, was deleted"
            self._context.index.put(now)
        return None


@dataclass(frozen=True, slots=True)
class _Needs:
    dependencies: tuple[Dependency, ...] = ()
    cycle: tuple[str, ...] = ()
    condition: bool | str | None = None
    found: tuple[InputFound, ...] = ()


def _over(task: Task, decisions: Decisions, sessions: tuple[SessionFacts, ...]) -> TaskFacts:
    """As much as is known of a Task without looking at anything it refers to: enough for one that is over."""
    return TaskFacts(
        task=task,
        missing=(),
        withdrawn=None,
        inputs=(),
        outputs=(),
        agents=(),
        decisions=decisions,
        sessions=sessions,
        expected_session={},
        artifacts=frozenset(),
    )


def _node_owner(obj: Object) -> str | None:
    """UID of the Node whose step it is; None for a Task somebody wrote, or whose owner reference was taken away."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("kind") == "Node"), None)


def _placed_under(entries: Sequence[Recorded]) -> str | None:
    found = (entry.entry["data"].get("ownerUid") for entry in entries if entry.entry["type"] == "task.placed")
    return next((str(uid) for uid in found if uid is not None), None)


def _stream(graph: Object | None, began_in: str | None) -> str:
    if began_in is not None:
        return began_in
    return graph_stream(graph["metadata"]["uid"]) if graph is not None else SYSTEM_STREAM


def _stands(obj: Object | None, uid: str | None) -> bool:
    """Whether it is there to stay, as that incarnation; None: as any."""
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return False
    return uid is None or bool(obj["metadata"]["uid"] == uid)


def _suspended(task: Task, graph: Object | None, node: Object | None) -> tuple[str, ...]:
    """What holds it back, the largest first."""
    above = [obj for obj in (graph, node) if obj is not None and obj["spec"].get("suspend")]
    names = [f"{obj['kind']} {obj['metadata']['name']}" for obj in above]
    return (*names, *([f"Task {task.metadata.name}"] if task.spec.suspend else []))


def _waits_for_time(task: Task, sessions: Sequence[SessionFacts]) -> bool:
    timed = task.spec.approval is not None and task.spec.approval.timeout_seconds is not None
    return timed or any(_has_failed(session) or session.questions for session in sessions)


def _has_failed(session: SessionFacts) -> bool:
    """Whether the time matters: a run that is over may be followed by another, after a while."""
    run = session.view.last_run if session.view is not None else None
    void = session.role == "reviewer" and isinstance(session.verdict, VerdictVoid)
    return run is not None and failure_of(run, void=void) is not None


def _session(obj: Object, view: SessionView | None) -> SessionFacts:
    spec, metadata = obj["spec"], obj["metadata"]
    return SessionFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        role=spec["role"].lower(),
        round=spec["round"],
        agent_uid=spec["agentRef"]["uid"],
        view=view,
        wanted=view is not None and view.wanted,
        made_at=metadata.get("creationTimestamp"),
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
