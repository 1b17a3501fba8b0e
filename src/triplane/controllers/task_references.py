"""What a Task refers to: Capabilities, inputs, Agents and their Harnesses; found, or noted as missing."""

from collections.abc import Sequence

from triplane.api.agent import Agent, AgentLifecycle
from triplane.api.capability import Capability
from triplane.api.meta import Input
from triplane.api.task import Task
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.observe import Observer, requester_of
from triplane.controllers.task_plan import Object
from triplane.domain.blob import how_to_put
from triplane.domain.eligibility import Candidate
from triplane.domain.task import review_capability
from triplane.domain.task_facts import Decisions
from triplane.domain.workorder import ResolvedInput


class References:
    """Resolves by the index. ``missing`` lists collect ``(reason, message)``."""

    def __init__(self, context: Context, observer: Observer, decisions: DecisionReader) -> None:
        self._context = context
        self._observer = observer
        self._decisions = decisions

    async def instructions_principal(self, task: Task) -> str | None:
        """Principal id of the user whose Capability instructs the Task's reviewer."""
        obj = self._context.index.get("Capability", task.metadata.namespace, review_capability(task))
        return None if obj is None else await self._observer.principal_of(obj)

    def capabilities(self, task: Task, missing: list[tuple[str, str]]) -> tuple[Capability, ...]:
        """The required Capabilities that exist; the others are added to ``missing``."""
        found = []
        for name in task.spec.required_capabilities or ():
            obj = self._context.index.get("Capability", task.metadata.namespace, name)
            if obj is None:
                missing.append(("CapabilityNotFound", f"Capability {name} does not exist; apply it"))
            else:
                found.append(Capability.model_validate(obj))
        return tuple(found)

    async def inputs(
        self, task: Task, decisions: Decisions, missing: list[tuple[str, str]]
    ) -> tuple[ResolvedInput, ...]:
        """The inputs that are there, by digest; the others are added to ``missing``."""
        resolved = []
        for item in task.spec.inputs or ():
            digest = item.digest or await self._accepted_output(task.metadata.namespace, item, missing)
            if digest is None:
                continue
            begun = decisions.placements  # the runner finds out if it has gone since; asking costs a request each
            if item.digest is not None and not begun and not await self._stored(task.metadata.namespace, digest):
                to_do = how_to_put(task.metadata.namespace)
                missing.append(
                    ("InputNotStored", f"input {item.name} {digest} is not stored in this namespace; {to_do}")
                )
                continue
            resolved.append(ResolvedInput(item.name, digest, item.type.value))
        return tuple(resolved)

    async def _stored(self, namespace: str, digest: str) -> bool:
        """A foreign blob is as good as none: nobody may learn from a Task what lies in another namespace."""
        context = self._context
        return await context.sessions.owns_blob(namespace, digest) and await context.content.exists(digest)

    async def _accepted_output(self, namespace: str, item: Input, missing: list[tuple[str, str]]) -> str | None:
        source = item.from_
        assert source is not None
        obj = self._context.index.get("Task", namespace, source.task)
        if obj is None:
            missing.append(("TaskNotFound", f"input {item.name} comes from Task {source.task}, which does not exist"))
            return None
        decisions, _ = await self._decisions.read(obj["metadata"]["uid"])
        if decisions.accepted_round is None:
            state = "has failed" if decisions.failed else "is not accepted yet"
            missing.append(("InputNotAccepted", f"input {item.name} comes from Task {source.task}, which {state}"))
            return None
        for subject in decisions.accepted_subjects:
            if subject.name == source.output:
                return subject.digest
        missing.append(("OutputNotFound", f"Task {source.task} has no accepted output {source.output}"))
        return None

    async def candidates(self, namespace: str) -> tuple[Candidate, ...]:
        """The Agents of the namespace, with who controls them."""
        index = self._context.index
        found = []
        for obj in index.list("Agent", namespace):
            if obj["metadata"].get("deletionTimestamp"):
                continue
            agent = Agent.model_validate(obj)
            harness = agent.spec.harness_ref.name
            harness_obj = index.get("Harness", namespace, harness)
            found.append(
                Candidate(
                    uid=agent.metadata.uid,
                    name=agent.metadata.name,
                    generation=agent.metadata.generation,
                    capabilities=frozenset(agent.spec.capabilities),
                    principal=await self._observer.principal_of(obj),
                    active=agent.spec.lifecycle is AgentLifecycle.ACTIVE,
                    harness=harness,
                    harness_found=harness_obj is not None,
                    users=frozenset(filter(None, (requester_of(obj), requester_of(harness_obj or obj)))),
                    harness_principal=(
                        await self._observer.principal_of(harness_obj) if harness_obj is not None else None
                    ),
                )
            )
        return tuple(found)

    def check(
        self,
        task: Task,
        graph: Object | None,
        node: Object | None,
        agents: Sequence[Candidate],
        missing: list[tuple[str, str]],
    ) -> None:
        """Add what else the Task names and does not exist to ``missing``."""
        names = {agent.name for agent in agents}
        review = task.spec.review
        if graph is None:
            name = task.spec.graph_ref.name
            missing.insert(0, ("GraphNotFound", f"Graph {name} does not exist; apply it"))
        if task.spec.node_ref is not None and node is None:
            missing.append(("NodeNotFound", f"Node {task.spec.node_ref.name} does not exist"))
        for what, ref in (
            ("agentRef", task.spec.agent_ref),
            ("review.agentRef", review.agent_ref if review is not None else None),
        ):
            if ref is not None and ref.name not in names:
                missing.append(("AgentNotFound", f"Agent {ref.name} ({what}) does not exist; apply it"))
