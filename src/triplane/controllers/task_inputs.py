"""What a Task gets from other Tasks: how they stand, what its conditions say of them, and its composed inputs."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from triplane.api.task import Task
from triplane.api.work import Edge, Input, Merge
from triplane.controllers.context import Context
from triplane.controllers.decisions import DecisionReader
from triplane.controllers.owned import owned_by
from triplane.controllers.task_plan import Object
from triplane.domain.merge import MAX_COMPOSED, Unmergeable, too_large
from triplane.domain.resourcegraph import ResourceRecord
from triplane.domain.task_facts import Decisions
from triplane.domain.task_needs import (
    AcceptedOutput,
    Composition,
    Dependency,
    InputFound,
    Standing,
    bringing,
    compose,
    dependency_names,
    distinct_steps,
    find_cycle,
    is_plain,
    output_missing,
    variables,
)
from triplane.errors import BlobMissing, Corrupt, InvalidExpression, TooLarge

MAX_DOCUMENT: Final = 256 * 1024
"""Octets of an output whose parsed content conditions see."""
KEPT_CONDITIONS: Final = 10_000
"""Values of conditions kept in mind: what they look at is final."""


class TaskNeeds:
    """One serves all Tasks."""

    def __init__(self, context: Context, decisions: DecisionReader) -> None:
        self._context = context
        self._decisions = decisions
        self._values: OrderedDict[tuple[str, ...], bool | str] = OrderedDict()

    async def dependencies(self, task: Task, node_uid: str | None = None) -> tuple[Dependency, ...]:
        """How everything it waits for stands; at most one query of the log.

        ``node_uid``: of the Node whose step it is. That makes a step that is over no second time, so one that somebody
        deleted stands as it ended; any other Task that is not there is waited for.
        """
        namespace = task.metadata.namespace
        objects = {name: self._context.index.get("Task", namespace, name) for name in dependency_names(task)}
        if node_uid is not None and None in objects.values():
            former = await owned_by(self._context.graph, node_uid, "Task")
        else:
            former = {}
        known = {name: _Known.of(obj, former.get(name)) for name, obj in objects.items()}
        decided = await self._decisions.read_many(item.uid for item in known.values() if item is not None)
        found = []
        for name, item in known.items():
            if item is None or (objects[name] is None and not decided[item.uid].over):
                found.append(Dependency(name, name, Standing.MISSING))
            else:
                found.append(await self._dependency(name, item, decided[item.uid]))
        return distinct_steps(found)

    async def _dependency(self, name: str, known: "_Known", decisions: Decisions) -> Dependency:
        uid, step = known.uid, known.step or name
        if decisions.accepted_round is not None:
            outputs = {
                subject.name: await self._output(uid, decisions.accepted_round, subject.name, subject.digest)
                for subject in decisions.accepted_subjects
            }
            return Dependency(name, step, Standing.COMPLETED, uid, outputs=outputs)
        if decisions.skipped is not None:
            return Dependency(name, step, Standing.SKIPPED, uid)
        if decisions.failed is not None:
            return Dependency(name, step, Standing.FAILED, uid, reason=decisions.failed[0])
        return Dependency(name, step, Standing.OPEN, uid)

    async def _output(self, task_uid: str, round_: int, name: str, digest: str) -> AcceptedOutput:
        """Its media type stands in the Artifact; of one that somebody has deleted, in the graph store."""
        specs = [item["spec"] for item in self._context.index.children("Artifact", "task", task_uid)]
        if not any(_is_output(spec, round_, name, digest) for spec in specs):
            specs = [record.spec for record in (await owned_by(self._context.graph, task_uid, "Artifact")).values()]
        for spec in specs:
            if _is_output(spec, round_, name, digest):
                return AcceptedOutput(digest, spec["mediaType"], spec["size"])
        try:
            size = await self._context.content.size(digest)
        except BlobMissing:
            size = 0
        return AcceptedOutput(digest, "application/octet-stream", size)

    def cycle(self, task: Task, dependencies: Sequence[Dependency]) -> tuple[str, ...]:
        """The Tasks that wait for one another through this one; looked for only while it waits."""
        if all(item.settled for item in dependencies):
            return ()
        namespace = task.metadata.namespace

        def needed(name: str) -> tuple[str, ...]:
            obj = self._context.index.get("Task", namespace, name)
            if obj is None or self._context.decided.get(obj["metadata"]["uid"]) is not None:
                return ()
            return _names(obj)

        return find_cycle(task.metadata.name, needed)

    async def condition(self, task: Task, dependencies: Sequence[Dependency]) -> bool | str | None:
        """Value of ``spec.when``, or why it has none. Raises ``Unavailable`` when that cannot be said now."""
        if task.spec.when is None:
            return None
        return await self._value(task, task.spec.when, dependencies)

    async def inputs(
        self,
        task: Task,
        dependencies: Sequence[Dependency],
        recorded: Mapping[str, str],
        missing: list[tuple[str, str]],
    ) -> tuple[InputFound, ...]:
        """Its inputs from other Tasks, all of which are settled. ``recorded`` are the digests of those that were
        composed before. Contents that are not there now are added to ``missing``."""
        taken = [item for item in task.spec.inputs or () if item.edges]
        return tuple([await self._input(task, item, dependencies, recorded, missing) for item in taken])

    async def _input(
        self,
        task: Task,
        item: Input,
        dependencies: Sequence[Dependency],
        recorded: Mapping[str, str],
        missing: list[tuple[str, str]],
    ) -> InputFound:
        blank = InputFound(item.name, item.type)
        if item.name in recorded:
            return replace(blank, digest=recorded[item.name])
        by_name = {entry.name: entry for entry in dependencies}
        holds: dict[str, bool] = {}
        for edge in item.edges:
            if edge.when is None or edge.task is None or by_name[edge.task].standing is not Standing.COMPLETED:
                continue
            value = await self._value(task, edge.when, dependencies)
            if isinstance(value, str):
                return replace(blank, failed=("ConditionFailed", f"input {item.name}: {value}"))
            holds[edge.when] = value
        edges = bringing(item, by_name, holds)
        if not edges:
            return blank
        if (wrong := output_missing(item, edges, by_name)) is not None:
            return replace(blank, failed=("OutputNotFound", wrong))
        if is_plain(item):
            edge = edges[0]
            assert edge.task is not None
            return replace(blank, digest=by_name[edge.task].outputs[edge.output].digest)
        try:
            return replace(blank, composition=await self._compose(item, edges, by_name))
        except Unmergeable as error:
            return replace(blank, failed=(error.reason, str(error)))
        except (BlobMissing, Corrupt) as error:
            missing.append(("InputNotStored", f"input {item.name} cannot be composed: {error}"))
            return replace(blank, absent=True)

    async def _compose(self, item: Input, edges: Sequence[Edge], dependencies: Mapping[str, Dependency]) -> Composition:
        used = edges[-1:] if (item.merge or Merge.LAST_WRITE_WINS) is Merge.LAST_WRITE_WINS else edges
        digests = dict.fromkeys(dependencies[edge.task].outputs[edge.output].digest for edge in used if edge.task)
        contents: dict[str, bytes] = {}
        total = 0
        for digest in digests:
            contents[digest] = await self._content(digest, MAX_COMPOSED - total, item.name)
            total += len(contents[digest])
        # Parsing and writing megabytes of JSON takes a while, and the loop has other work.
        return await asyncio.to_thread(compose, item, edges, dependencies, contents)

    async def _content(self, digest: str, left: int, name: str) -> bytes:
        taken = bytearray()
        async for chunk in self._context.content.resolve(digest):
            taken += chunk
            if len(taken) > left:
                size = await self._context.content.size(digest) + MAX_COMPOSED - left
                raise Unmergeable("InputTooLarge", f"input {name}: {too_large(size)}")
        return bytes(taken)

    async def _value(self, task: Task, expression: str, dependencies: Sequence[Dependency]) -> bool | str:
        key = (task.metadata.uid, expression, *(item.uid for item in dependencies))
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        seen = variables(dependencies, await self._documents(expression, dependencies), task.spec.parameters or {})
        value: bool | str
        try:
            value = await self._context.expressions.evaluate(expression, seen)
        except InvalidExpression as error:
            value = str(error)
        self._values[key] = value
        if len(self._values) > KEPT_CONDITIONS:
            self._values.popitem(last=False)
        return value

    async def _documents(self, expression: str, dependencies: Sequence[Dependency]) -> dict[str, Any]:
        """Parsed JSON outputs by digest; only for a condition that mentions ``json``, for they may be large."""
        if "json" not in expression:
            return {}
        documents = {}
        for output in (output for item in dependencies for output in item.outputs.values()):
            kind = output.media_type.partition(";")[0].strip().lower()
            if output.size > MAX_DOCUMENT or not (kind == "application/json" or kind.endswith("+json")):
                continue
            try:
                documents[output.digest] = await self._context.load_json(output.digest)
            except (BlobMissing, Corrupt, TooLarge, ValueError):
                continue  # the condition finds no `json` there, and says so
        return documents


@dataclass(frozen=True, slots=True)
class _Known:
    """As much of a Task that is waited for as matters here."""

    uid: str
    step: str | None

    @classmethod
    def of(cls, obj: Object | None, former: ResourceRecord | None) -> "_Known | None":
        if obj is not None:
            return cls(obj["metadata"]["uid"], obj["spec"].get("step"))
        return None if former is None else cls(former.uid, former.spec.get("step"))


def _is_output(spec: Mapping[str, Any], round_: int, name: str, digest: str) -> bool:
    return (spec["name"], spec["digest"], spec["round"]) == (name, digest, round_)


def _names(obj: Object) -> tuple[str, ...]:
    """As ``dependency_names``, of an object that need not be valid."""
    spec = obj["spec"]
    names = list(spec.get("dependsOn") or ())
    for item in spec.get("inputs") or ():
        edges = [item["from"]] if item.get("from") else item.get("sources") or ()
        names += [edge["task"] for edge in edges if edge.get("task")]
    return tuple(dict.fromkeys(names))
