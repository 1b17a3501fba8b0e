"""Tool reconciler: can it be offered as it stands?"""

from collections.abc import Mapping
from typing import Any

from triplane.api.tool import Tool
from triplane.controllers.ready import USABLE, Judgement, ReadyReconciler
from triplane.domain.conditions import Finding, progress_findings
from triplane.domain.tool import tool_problem


class ToolReconciler(ReadyReconciler):
    """Sets ``Stalled`` too. Whether its program or server answers is found out by each run that uses it."""

    async def _judge(self, obj: Mapping[str, Any]) -> Judgement:
        problem = tool_problem(Tool.model_validate(obj).spec)
        ready = USABLE if problem is None else Finding("Ready", "False", "ToolInvalid", problem)
        stalled = None if problem is None else ("ToolInvalid", problem)
        return {}, [ready, *progress_findings(working=None, stalled=stalled)]
