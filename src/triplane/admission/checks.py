"""The graph checks: what is wrong with one object's shape, its conditions, and what it depends on as stored now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from triplane.admission.ancestors import MAX_ANCESTORS, TooManyAncestors, with_ancestors
from triplane.admission.asked import Asked, Outcome, Reads
from triplane.api.node import NodeSpec
from triplane.api.task import TaskSpec
from triplane.api.work import MAX_DEPTH, Step
from triplane.api.workflow import Workflow, WorkflowSpec
from triplane.domain.admission import Violation, conditions, dependencies, patterns, task_violations, twin_violations
from triplane.domain.admission import work_violations as named_twins
from triplane.domain.ancestry import cycle_through
from triplane.domain.naming import object_name
from triplane.domain.parameters import declaration_problems, settle
from triplane.domain.workflow import depth, problems, spell, waits_for
from triplane.errors import InvalidExpression
from triplane.ports import Expressions


class GraphCheck:
    """The first layer of admission: graphs that could never run."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``asked.Check``. What an update cannot change was judged when the object was made."""
        spec = asked.object.get("spec") or {}
        old = None if asked.old is None else asked.old.get("spec") or {}
        if not _changes_a_graph(asked, spec, old):
            return Outcome()
        checks = Checks(reads, self._expressions)
        match asked.kind:
            case "Task":
                found = await checks.task(asked.namespace, asked.name, TaskSpec.model_validate(spec))
            case "Workflow":
                found = await checks.workflow(WorkflowSpec.model_validate(spec))
            case _:
                found = await checks.node(asked.namespace, asked.name, NodeSpec.model_validate(spec))
        return Outcome(tuple(found))


def _changes_a_graph(asked: Asked, spec: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    if old is None:
        return asked.kind in {"Task", "Workflow", "Node"}
    # Edges, steps and conditions of Tasks and Nodes are immutable.
    return (asked.kind == "Workflow" and spec != old) or (
        asked.kind == "Task" and spec.get("review") != old.get("review")
    )


class Checks:
    """The checks, on one reader and one evaluator of conditions."""

    def __init__(self, reads: Reads, expressions: Expressions) -> None:
        self._reads = reads
        self._expressions = expressions

    async def task(self, namespace: str, name: str, spec: TaskSpec) -> list[Violation]:
        """Of a Task that is about to be stored. Raises ``Unavailable`` when that cannot be told now."""
        found = list(task_violations(name, spec))
        found += await self._conditions(conditions("spec", spec))
        waits = dependencies(name, spec)
        if not found and waits:
            found += await self._cycles(namespace, {name: waits}, "spec.dependsOn")
        return found

    async def workflow(self, spec: WorkflowSpec) -> list[Violation]:
        """Of a Workflow that is about to be stored."""
        declared = spec.parameters or []
        found = [Violation("spec.parameters", message) for _, message in declaration_problems(declared)]
        for item in declared:
            found += twin_violations(f"spec.parameters[{item.name}].options", item.options or ())
        return found + await self._steps(spec.steps, [item.name for item in declared])

    async def node(self, namespace: str, name: str, spec: NodeSpec) -> list[Violation]:
        """Of a Node that is about to be stored. A Workflow that does not exist is a dangling reference: accepted."""
        if spec.steps is not None:
            found = await self._steps(spec.steps, list(spec.parameters or ()), name)
            return found or await self._outside(namespace, name, spec.steps)
        found = await self._conditions(
            (f"spec.overrides[{item.name}].when", item.when) for item in spec.overrides or () if item.when is not None
        )
        workflow = await self._workflow(namespace, spec)
        if workflow is not None:
            found += _use(name, spec, workflow)
            found += [] if found else await self._outside(namespace, name, workflow.steps)
        return found

    async def _workflow(self, namespace: str, spec: NodeSpec) -> WorkflowSpec | None:
        assert spec.workflow_ref is not None, "the schema demands steps or a workflowRef"
        stored = await self._reads.get("Workflow", namespace, spec.workflow_ref.name)
        return None if stored is None else Workflow.model_validate(stored).spec

    async def _steps(
        self, steps: Sequence[Step], parameters: Sequence[str], node_name: str | None = None
    ) -> list[Violation]:
        wrong = problems(steps, parameters=parameters, node_name=node_name)
        found = [Violation("spec.steps", problem.message) for problem in wrong]
        for step in steps:
            found += named_twins(f"spec.steps[{step.name}]", step)
        every = (each for step in steps for each in conditions(f"spec.steps[{step.name}]", step))
        return found + await self._conditions(every)

    async def _conditions(self, every: Iterable[tuple[str, str]]) -> list[Violation]:
        found = []
        verdicts: dict[str, str | None] = {}
        for field, expression in every:
            if expression not in verdicts:
                verdicts[expression] = await self._verdict(expression)
            if (verdict := verdicts[expression]) is not None:
                found.append(Violation(field, verdict))
        return found

    async def _verdict(self, expression: str) -> str | None:
        """Why the condition cannot be used; None when it can."""
        try:
            await self._expressions.check(expression)
            for pattern in patterns(expression):
                await self._expressions.evaluate(pattern, {"steps": {}, "parameters": {}})
        except InvalidExpression as error:
            return str(error)
        return None

    async def _outside(self, namespace: str, node_name: str, steps: Sequence[Step]) -> list[Violation]:
        """Cycles that lead through Tasks outside the Node, which its edges name by ``task``."""
        inside = waits_for(steps, node_name)
        new: Mapping[str, Sequence[str]] = {
            object_name(node_name, step.name): sorted(
                {object_name(node_name, other) for other in inside[step.name]}
                | {edge.task for edge in step.edges if edge.task is not None}
            )
            for step in steps
        }
        if all(name in new for names in new.values() for name in names):
            return []
        return await self._cycles(namespace, new, "spec.steps")

    async def _cycles(self, namespace: str, new: Mapping[str, Sequence[str]], field: str) -> list[Violation]:
        try:
            known = await with_ancestors(self._reads, namespace, new)
        except TooManyAncestors:
            message = (
                f"{_some(new)} waits for more than {MAX_ANCESTORS} Tasks, directly and indirectly: "
                "split the work into Nodes, or depend on fewer"
            )
            return [Violation(field, message)]
        for name in new:
            if (cycle := cycle_through(name, known)) is not None:
                return [
                    Violation(field, f"the Tasks wait for each other: {spell(cycle)}; remove one of these dependencies")
                ]
        if (longest := depth(known)) > MAX_DEPTH:
            message = f"{longest} Tasks follow one another up to {_some(new)}; at most {MAX_DEPTH} may (depth)"
            return [Violation(field, f"{message}: let some of them run side by side")]
        return []


def _use(name: str, spec: NodeSpec, workflow: WorkflowSpec) -> Iterator[Violation]:
    """What this Node does with the Workflow as it stands now."""
    assert spec.workflow_ref is not None
    names = [step.name for step in workflow.steps]
    for override in spec.overrides or ():
        if override.name not in names:
            known = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            yield Violation(
                f"spec.overrides[{override.name}]",
                f"Workflow {spec.workflow_ref.name} has no step {override.name}; it has {known}",
            )
    for _, message in settle(workflow.parameters or [], spec.parameters or {}).problems:
        yield Violation("spec.parameters", message)
    # The Workflow's own problems are its own: only what this Node's name adds to them is the Node's.
    before = problems(workflow.steps)
    for problem in problems(workflow.steps, node_name=name):
        if problem not in before:
            yield Violation("spec.workflowRef", problem.message)


def _some(new: Mapping[str, Sequence[str]]) -> str:
    return next(iter(new)) if len(new) == 1 else "the Node"
