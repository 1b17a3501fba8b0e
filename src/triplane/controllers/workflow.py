"""Workflow reconciler: says whether a Node can run it, and in which order its steps may go."""

from typing import Any

from triplane.api.workflow import Workflow, WorkflowSpec
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain.admission import conditions
from triplane.domain.conditions import Finding
from triplane.domain.node import told
from triplane.domain.node_plan import workflow_problems
from triplane.domain.workflow import Problem, depth, order, waits_for
from triplane.errors import InvalidExpression


class WorkflowReconciler:
    """Sets ``Ready``, and the order and depth of the steps; Nodes that wait for it are woken by the watch."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status

    async def reconcile(self, key: Key) -> float | None:
        """Returns None: it waits for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        await self._observer.observe(obj)
        spec = Workflow.model_validate(obj).spec
        found = [*workflow_problems(spec), *await self._conditions(spec)]
        status: dict[str, Any] = {"steps": len(spec.steps)}
        if found:
            finding = Finding("Ready", "False", found[0].reason, told(found))
        else:
            graph = waits_for(spec.steps)
            status |= {"depth": depth(graph), "order": list(order(graph))}
            finding = Finding("Ready", "True", "Ready", "It can be used")
        return await self._status.write(obj, status, [finding])

    async def _conditions(self, spec: WorkflowSpec) -> list[Problem]:
        """Admission refuses these; a Workflow that came by another way must not call itself ready."""
        found = []
        for step in spec.steps:
            for field, expression in conditions(f"step {step.name}", step):
                try:
                    await self._context.expressions.check(expression)
                except InvalidExpression as error:
                    found.append(Problem("ConditionInvalid", f"{field}: {error}"))
        return found
