"""What a Task refers to: Capabilities, inputs, Agents and their Harnesses; found, or noted as missing."""

from collections.abc import Mapping, Sequence
from typing import Final

from triplane.api.agent import Agent, AgentLifecycle
from triplane.api.task import Task
from triplane.api.tool import Tool
from triplane.audit.digest import digest_of_bytes
from triplane.controllers.context import Context
from triplane.controllers.observe import Observer, requester_of
from triplane.controllers.task_plan import Object
from triplane.domain.blob import how_to_put
from triplane.domain.eligibility import Candidate
from triplane.domain.lens import OF_FILES
from triplane.domain.task_needs import InputFound
from triplane.domain.task_review import review_capability
from triplane.domain.tool import tool_problem
from triplane.domain.workorder import ResolvedInput

KEPT_CANDIDATES: Final = 10_000


class References:
    """Resolves by the index. ``missing`` lists collect ``(reason, message)``."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer
        self._candidates: dict[str, tuple[object, Candidate]] = {}

    async def instructions_principal(self, task: Task) -> str | None:
        """Principal id of the user whose Capability instructs the Task's reviewer."""
        obj = self._context.index.get("Capability", task.metadata.namespace, review_capability(task))
        return None if obj is None else await self._observer.controller_of(obj)

    async def inputs(
        self,
        task: Task,
        found: Mapping[str, InputFound],
        missing: list[tuple[str, str]],
        files: Sequence[tuple[str, str]] = (),
        *,
        begun: bool,
    ) -> tuple[ResolvedInput, ...]:
        """The inputs that are there, by digest; stored blobs that are not are added to ``missing``. ``found`` are
        those that come from other Tasks, ``files`` the blobs that parameters of Capabilities name."""
        resolved = []
        for item in task.spec.inputs or ():
            if item.value is not None:
                digest: str | None = digest_of_bytes(item.value.encode())
            elif item.digest is not None:
                digest = item.digest
                # The runner finds out if it has gone since; asking costs two requests each.
                if not begun and not await self._stored(task.metadata.namespace, digest):
                    to_do = how_to_put(task.metadata.namespace)
                    missing.append(
                        ("InputNotStored", f"input {item.name} {digest} is not stored in this namespace; {to_do}")
                    )
                    continue
            else:
                digest = found[item.name].digest if item.name in found else None
            if digest is not None:
                resolved.append(ResolvedInput(item.name, digest, item.type.value))
        for name, digest in files:
            if not begun and not await self._stored(task.metadata.namespace, digest):
                to_do = how_to_put(task.metadata.namespace)
                missing.append(("InputNotStored", f"parameter {name} {digest} is not stored there; {to_do}"))
            else:
                resolved.append(ResolvedInput(f"{OF_FILES}/{name}", digest, "File"))
        return tuple(resolved)

    async def _stored(self, namespace: str, digest: str) -> bool:
        """A foreign blob is as good as none: nobody may learn from a Task what lies in another namespace."""
        context = self._context
        return await context.sessions.owns_blob(namespace, digest) and await context.content.exists(digest)

    async def candidates(self, namespace: str) -> tuple[Candidate, ...]:
        """The Agents of the namespace, with who controls them."""
        index = self._context.index
        found = []
        for obj in index.list("Agent", namespace):
            if not obj["metadata"].get("deletionTimestamp"):
                harness = index.get("Harness", namespace, obj["spec"]["harnessRef"]["name"])
                found.append(await self._candidate(obj, harness))
        return tuple(found)

    async def _candidate(self, obj: Object, harness_obj: Object | None) -> Candidate:
        """Made once per version of Agent and Harness: every Task of the namespace asks at every look."""
        uid = obj["metadata"]["uid"]
        versions = (_version(obj), _version(harness_obj) if harness_obj is not None else None)
        kept = self._candidates.get(uid)
        if kept is not None and kept[0] == versions:
            return kept[1]
        agent = Agent.model_validate(obj)
        candidate = Candidate(
            uid=uid,
            name=agent.metadata.name,
            generation=agent.metadata.generation,
            capabilities=frozenset(agent.spec.capabilities),
            principal=await self._observer.controller_of(obj),
            active=agent.spec.lifecycle is AgentLifecycle.ACTIVE,
            harness=agent.spec.harness_ref.name,
            harness_found=harness_obj is not None,
            users=frozenset(filter(None, self._users(obj) + self._users(harness_obj or obj))),
            harness_principal=await self._observer.controller_of(harness_obj) if harness_obj is not None else None,
            model_family=agent.spec.model_family,
        )
        if len(self._candidates) >= KEPT_CANDIDATES:
            self._candidates.clear()
        self._candidates[uid] = (versions, candidate)
        return candidate

    def _users(self, obj: Object) -> tuple[str | None, ...]:
        return requester_of(obj), self._observer.person_of(obj)

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
        missing += self._tools(task)
        if task.spec.node_ref is not None and node is None:
            missing.append(("NodeNotFound", f"Node {task.spec.node_ref.name} does not exist"))
        for what, ref in (
            ("agentRef", task.spec.agent_ref),
            ("review.agentRef", review.agent_ref if review is not None else None),
        ):
            if ref is not None and ref.name not in names:
                missing.append(("AgentNotFound", f"Agent {ref.name} ({what}) does not exist; apply it"))

    def _tools(self, task: Task) -> list[tuple[str, str]]:
        """The Tools it names that cannot be offered now."""
        found: list[tuple[str, str]] = []
        for name in task.spec.tools or ():
            obj = self._context.index.get("Tool", task.metadata.namespace, name)
            if obj is None or obj["metadata"].get("deletionTimestamp"):
                found.append(("ToolNotFound", f"Tool {name} does not exist; apply it"))
            elif (problem := tool_problem(Tool.model_validate(obj).spec)) is not None:
                found.append(("ToolInvalid", f"Tool {name}: {problem}"))
        return found


def _version(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["uid"], obj["metadata"].get("resourceVersion", "")
