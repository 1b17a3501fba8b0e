"""Whether a Task's inputs meet the contracts of the lenses it exercises; contents are judged by the gateway."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from triplane.api.task import Task
from triplane.audit.digest import digest_of_json
from triplane.controllers.context import Context
from triplane.domain.inputcontract import ContentCheck, Unmet, content_checks, declared_gap
from triplane.domain.lens import ChosenLens, Problem
from triplane.domain.task_needs import Dependency, is_plain
from triplane.domain.workorder import ResolvedInput
from triplane.errors import BlobMissing

KEPT: Final = 10_000
"""Contents known to meet a contract: they do so for ever."""


class InputContracts:
    """One serves all Tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._met: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    async def unmet(
        self,
        task: Task,
        lenses: Sequence[ChosenLens],
        inputs: Sequence[ResolvedInput],
        dependencies: Sequence[Dependency],
        missing: list[Problem],
    ) -> Problem | None:
        """Why the Task cannot begin with these inputs; those that are still to come are passed over.

        What has gone from the content store is added to ``missing``. Raises ``Unavailable`` when it cannot be told.
        """
        if (gap := declared_gap(task, lenses)) is not None:
            return gap
        checks = content_checks(lenses, inputs, _produced_as(task, dependencies))
        if isinstance(checks, Unmet):
            return checks.reason, checks.message
        for check in checks:
            try:
                problem = await self._problem(check)
            except BlobMissing as error:
                missing.append(("InputNotStored", f"input {check.input} cannot be checked: {error}"))
                return None
            if problem is not None:
                return check.unmet(problem)
        return None

    async def _problem(self, check: ContentCheck) -> str | None:
        key = (check.digest, check.media_type, digest_of_json({"schema": check.schema}))
        if key in self._met:
            self._met.move_to_end(key)
            return None
        problem = await self._context.contracts.problem(check.digest, check.media_type, check.schema)
        if problem is None:
            self._met[key] = None
            if len(self._met) > KEPT:
                self._met.popitem(last=False)
        return problem


def _produced_as(task: Task, dependencies: Sequence[Dependency]) -> Mapping[str, str]:
    """Media types of the inputs that are one whole output of another Task."""
    known = {item.name: item.outputs for item in dependencies}
    found = {}
    for item in task.spec.inputs or ():
        edge = item.from_
        if edge is None or edge.task is None or not is_plain(item):
            continue
        output = known.get(edge.task, {}).get(edge.output)
        if output is not None:
            found[item.name] = output.media_type
    return found
