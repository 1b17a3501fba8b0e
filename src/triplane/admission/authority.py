"""Refuses more authority than there is to give, as early as that can be told.

This is the early word: what is above may be edited, deleted or made anew a moment later, so every launch asks again
(``controllers.launch``). A parent that does not exist is a dangling reference: then only the installation's ceiling,
which holds in any case, is held against. Narrowing is never refused, whatever stands beneath.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from triplane.admission.asked import Asked, Outcome, Reads
from triplane.api.authority import Authority, Grant
from triplane.api.node import Node
from triplane.api.task import TaskSpec
from triplane.api.text import REQUESTER
from triplane.api.work import Work
from triplane.api.workflow import Workflow, WorkflowSpec
from triplane.domain.admission import Violation, exceeding
from triplane.domain.node_plan import make_plan
from triplane.domain.warrant import INSTALLATION, Ceiling, Holder, Refused, demanded, lacking, too_wide, warrant

_RUNNER: Final = "whoever runs the installation (TRIPLANE_AUTHORITY)"
_WIDENING: Final[Mapping[str, tuple[str, ...]]] = {
    "Graph": ("authority",),
    "Node": ("authority", "graphRef", "workflowRef", "steps", "overrides", "parameters"),
    "Workflow": ("steps",),
    "Task": ("authority", "graphRef", "nodeRef", "agentRef", "tools", "secrets", "paths", "model"),
    "Agent": ("authority", "harnessRef", "model", "capabilities"),
}
"""Fields by which an update could take more than there is."""


class AuthorityCheck:
    """The layer of admission that knows the chain: ceiling → Graph → Node → Task, and ceiling → Agent."""

    def __init__(self, ceiling: Ceiling) -> None:
        self._ceiling = ceiling

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        """See ``asked.Check``."""
        spec = asked.object.get("spec") or {}
        fields = _WIDENING.get(asked.kind, ())
        old = (asked.old or {}).get("spec") or {}
        if not fields or (asked.old is not None and all(spec.get(name) == old.get(name) for name in fields)):
            return Outcome()
        found: Iterable[Violation]
        match asked.kind:
            case "Graph":
                found = self._own("spec.authority", (), _asking(asked))
            case "Agent":
                found = self._agent(asked)
            case "Workflow":
                found = self._workflow(asked)
            case "Node":
                found = await self._node(asked, reads)
            case _:
                found = await self._task(asked, reads)
        return Outcome(tuple(found))

    def _own(self, field: str, above: Sequence[Holder], holder: Holder) -> Iterator[Violation]:
        """What the object declares against what is above hands on."""
        return (_violation(field, each) for each in too_wide(self._ceiling, above, holder))

    def _agent(self, asked: Asked) -> Iterator[Violation]:
        holder, spec = _asking(asked), asked.object["spec"]
        yield from self._own("spec.authority", (), holder)
        needs = Grant().model_copy(
            update={
                "models": _literal(spec.get("model")),
                "harnesses": _literal((spec.get("harnessRef") or {}).get("name")),
                "capabilities": list(spec.get("capabilities") or ()),
            }
        )
        yield from (_violation("spec", each) for each in lacking(warrant(self._ceiling, [holder], None), needs))

    def _workflow(self, asked: Asked) -> Iterator[Violation]:
        """Where it is used is not known: only that it could be used at all."""
        for step in WorkflowSpec.model_validate(asked.object["spec"]).steps:
            holder = replace(_asking(asked), authority=step.authority)
            yield from self._own(f"spec.steps[{step.name}].authority", (), holder)

    async def _node(self, asked: Asked, reads: Reads) -> list[Violation]:
        node = Node.model_validate({**asked.object, "metadata": {**asked.object["metadata"], "name": asked.name}})
        spec, holder = node.spec, _asking(asked)
        workflow = None
        if spec.workflow_ref is not None:
            stored = await reads.get("Workflow", asked.namespace, spec.workflow_ref.name)
            workflow = Workflow.model_validate(stored) if stored is not None else None
        plan = make_plan(node, workflow) if spec.steps is not None or workflow is not None else ()
        steps = [] if isinstance(plan, tuple) else [(step.name, step.spec) for step in plan.steps]
        works = [(name, TaskSpec.model_validate({**step, "graphRef": spec.graph_ref.wire()})) for name, step in steps]
        if holder.authority is None and not any(map(_asks_for_something, (work for _, work in works))):
            return []
        graph = await reads.get("Graph", asked.namespace, spec.graph_ref.name)
        above = [_stored(graph)] if graph is not None else []
        found = list(self._own("spec.authority", above, holder))
        for name, work in works if not found else ():
            field = f"spec.steps[{name}]"
            step = Holder("step", name, work.authority, requester=holder.requester)
            found += self._own(f"{field}.authority", [*above, holder], step)
            found += await self._demands(field, asked, reads, work, [*above, holder, step] if above else None)
        return found

    async def _task(self, asked: Asked, reads: Reads) -> list[Violation]:
        spec, holder = TaskSpec.model_validate(asked.object["spec"]), _asking(asked)
        if not _asks_for_something(spec):
            return []
        refs = [("Graph", spec.graph_ref)] + ([("Node", spec.node_ref)] if spec.node_ref is not None else [])
        stored = [await reads.get(kind, asked.namespace, ref.name) for kind, ref in refs]
        above = [_stored(obj) for obj in stored if obj is not None]
        whole = len(above) == len(refs)
        found = list(self._own("spec.authority", above, holder))
        found += await self._demands("spec", asked, reads, spec, [*above, holder] if whole and not found else None)
        return found

    async def _demands(
        self, field: str, asked: Asked, reads: Reads, work: Work, chain: Sequence[Holder] | None
    ) -> Iterable[Violation]:
        """What the work needs against what it will have; ``chain`` None: that cannot be told yet."""
        if chain is None:
            return ()
        agent = None
        if work.agent_ref is not None:
            obj = await reads.get("Agent", asked.namespace, work.agent_ref.name)
            agent = _stored(obj) if obj is not None else None
        needs = demanded(work, role="producer", model=work.model, harness=None, review_capability="")
        refused = lacking(warrant(self._ceiling, chain, agent), needs)
        return [_violation(field, each) for each in refused]


def _asks_for_something(work: Work) -> bool:
    """Whether anything about it could be more than there is; most work asks for nothing."""
    return any((work.authority is not None, work.tools, work.secrets, work.paths, work.model))


def _literal(name: str | None) -> list[str]:
    return [name] if name else []


def _asking(asked: Asked) -> Holder:
    """The object of the request, on behalf of who asks."""
    return replace(_stored({**asked.object, "kind": asked.kind}, asked.name), requester=asked.user.get("username"))


def _stored(obj: Mapping[str, Any], name: str | None = None) -> Holder:
    spec, metadata = obj.get("spec") or {}, obj.get("metadata") or {}
    declared = spec.get("authority")
    return Holder(
        kind=obj["kind"],
        name=name or metadata.get("name", ""),
        authority=Authority.model_validate(declared) if declared is not None else None,
        requester=spec.get("onBehalfOf") or (metadata.get("annotations") or {}).get(REQUESTER),
    )


def _violation(field: str, refused: Refused) -> Violation:
    excess, setter = refused.excess, refused.holder
    ask = _RUNNER if setter.kind == INSTALLATION else setter.requester
    return exceeding(field, excess.axis.value, excess.value, excess.limit, refused.limit_of, ask)
