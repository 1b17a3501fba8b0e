"""Workflow reconciler: says whether a Node can run it, and in which order its steps may go."""

from collections.abc import Mapping
from typing import Any

from triplane.api.workflow import Workflow, WorkflowSpec
from triplane.controllers.ready import USABLE, Judgement, ReadyReconciler
from triplane.domain.admission import conditions
from triplane.domain.conditions import Finding
from triplane.domain.node import told
from triplane.domain.node_plan import workflow_problems
from triplane.domain.workflow import Problem, depth, order, waits_for
from triplane.errors import InvalidExpression


class WorkflowReconciler(ReadyReconciler):
    """Sets the order and depth of the steps too."""

    async def _judge(self, obj: Mapping[str, Any]) -> Judgement:
        spec = Workflow.model_validate(obj).spec
        steps = len(spec.steps)
        if found := [*workflow_problems(spec), *await self._conditions(spec)]:
            return {"steps": steps}, [Finding("Ready", "False", found[0].reason, told(found))]
        graph = waits_for(spec.steps)
        return {"steps": steps, "depth": depth(graph), "order": list(order(graph))}, [USABLE]

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
