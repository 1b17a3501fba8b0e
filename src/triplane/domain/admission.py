"""What no schema can say about a new Task, Workflow or Node, as far as the object itself tells.

What needs other objects (does this Task close a cycle?) is asked of ``domain.ancestry`` by the admission webhook.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.task import TaskSpec
from triplane.api.work import MAX_DEPENDENCIES, Edge, Input, Merge, Work
from triplane.domain.twins import spelled, twins

FORBIDDEN = "Forbidden"
"""Reason of a violation that another user would not have committed."""
MAX_SHOWN = 20
"""Violations a refusal lists; how many more there are it says."""
MAX_SPEC = 256 * 1024
"""Octets of a spec as JSON; each field has its cap, but not their sum."""
MAX_SCHEMA_NODES = 4096
"""Objects and arrays of a JSON Schema that are looked into for twins."""


_MATCHES = re.compile(r"""\.matches\(\s*(r?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))\s*\)""", re.IGNORECASE)
"""A call with a literal (CEL specification, "Lexis", STRING_LIT on one line)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Why an object is refused: the field, and what to do about it."""

    field: str
    """``spec.dependsOn[0]``; of a Policy ``Policy <namespace>/<name> <rule>`` (``policy_field``)."""
    message: str
    reason: str = "FieldValueInvalid"
    """In one word, CamelCase (metav1.StatusCause): ``AuthorityExceeded``, or what the Policy's rule says."""
    ask: str | None = None
    """Who can change what stands in the way; the message shown ends with it."""

    @property
    def text(self) -> str:
        """What the user reads; ``domain.why_denied`` takes it apart again."""
        return f"{self.message}; ask {self.ask}" if self.ask else self.message


def policy_field(namespace: str, name: str, rule: str) -> str:
    """Where a refusal says that it comes from a rule of a Policy."""
    return f"Policy {namespace}/{name} {rule}"


def exceeding(field: str, axis: str, value: str, limit: str, holder: str, ask: str | None) -> Violation:
    """More authority than there is: ``value`` on ``axis`` is not within ``limit``, which ``holder`` (``Graph team/g``,
    ``the installation``) sets and ``ask`` can change."""
    message = f"axis {axis}: {value} is beyond {limit or 'nothing'}, the limit of {holder}"
    return Violation(field, message, "AuthorityExceeded", ask)


def task_violations(name: str, spec: TaskSpec) -> tuple[Violation, ...]:
    """What is wrong with the edges of this Task and with the names in it."""
    return (*_edge_violations(name, spec), *work_violations("spec", spec))


def size_violations(octets: int) -> Iterator[Violation]:
    """Of a whole spec as JSON."""
    if octets > MAX_SPEC:
        message = f"has {octets} octets as JSON; at most {MAX_SPEC} are allowed: put long texts into inputs (blobs)"
        yield Violation("spec", message)


def work_violations(field: str, work: Work) -> Iterator[Violation]:
    """Twins among the names users choose freely; of a Task, or of a step under its ``field``."""
    people = (work.review.people if work.review else None) or ()
    yield from twin_violations(f"{field}.review.people", people)
    for item in work.inputs or ():
        targets = [edge.to for edge in item.sources or () if edge.to is not None]
        yield from twin_violations(f"{field}.inputs[{item.name}].sources.to", targets)
    for output in work.outputs or ():
        if output.json_schema is not None:
            yield from _schema_violations(f"{field}.outputs[{output.name}].schema", output.json_schema)


def twin_violations(field: str, names: Sequence[str]) -> Iterator[Violation]:
    """Names of one list that a reader cannot tell apart."""
    for one, other in twins(names):
        yield Violation(
            field,
            f"{spelled(one)} and {spelled(other)} look the same to a reader; keep one, in the spelling you mean",
        )


def conditions(field: str, work: Work) -> Iterator[tuple[str, str]]:
    """The CEL conditions of a Task or step, each with its field."""
    if work.when is not None:
        yield f"{field}.when", work.when
    for item in work.inputs or ():
        for place, edge in _placed(item, field):
            if edge.when is not None:
                yield f"{place}.when", edge.when


def patterns(condition: str) -> Iterator[str]:
    """A condition of its own for each regular expression that stands in this one as a literal.

    CEL compiles them only when it evaluates: so whether RE2 takes them, within its memory, is asked of these.
    """
    for found in _MATCHES.finditer(condition):
        yield f"''.matches({found[1]})"


def _edge_violations(name: str, spec: TaskSpec) -> Iterator[Violation]:
    for place, dependency in enumerate(spec.depends_on or ()):
        if dependency == name:
            yield _on_itself(f"spec.dependsOn[{place}]", name)
    for item in spec.inputs or ():
        placed = list(_placed(item, "spec"))
        for field, edge in placed:
            yield from _one_edge(name, item, field, edge)
        repeated = Counter(edge for _, edge in placed)
        for edge, times in repeated.items():
            if times > 1:
                source = f"{edge.task or edge.step} output {edge.output}"
                yield Violation(
                    f"spec.inputs[{item.name}].sources", f"the same edge from {source} stands {times} times; keep one"
                )
    waited = dependencies(name, spec)
    if len(waited) > MAX_DEPENDENCIES:
        yield Violation(
            "spec.dependsOn",
            f"{name} depends on {len(waited)} Tasks, dependsOn and edges together; at most {MAX_DEPENDENCIES} are "
            "allowed (fan-in): let some Tasks gather the others",
        )


def _one_edge(name: str, item: Input, field: str, edge: Edge) -> Iterator[Violation]:
    if edge.task == name:
        yield _on_itself(f"{field}.task", name)
    if edge.task is None:
        yield Violation(f"{field}.task", "is missing: an edge of a Task names a `task` (a `step` stands in a Node)")
    elif edge.step is not None:
        yield Violation(f"{field}.step", f"an edge of a Task names a `task` alone; leave `step: {edge.step}` out")
    if edge.to is not None and item.merge is not Merge.JSON_OBJECT:
        yield Violation(f"{field}.to", "only inputs with `merge: JsonObject` have places to put values")


def _on_itself(field: str, name: str) -> Violation:
    return Violation(field, f"{name} depends on itself ({name} → {name}); leave the edge out")


def dependencies(name: str, spec: TaskSpec) -> tuple[str, ...]:
    """Names of the Tasks it waits for, itself left out, sorted."""
    named = {*(spec.depends_on or ()), *(edge.task for edge in spec.edges if edge.task is not None)}
    return tuple(sorted(named - {name}))


def _placed(item: Input, field: str) -> Iterator[tuple[str, Edge]]:
    where = f"{field}.inputs[{item.name}]"
    if item.from_ is not None:
        yield f"{where}.from", item.from_
    for place, edge in enumerate(item.sources or ()):
        yield f"{where}.sources[{place}]", edge


def _schema_violations(field: str, schema: dict[str, Any]) -> Iterator[Violation]:
    pending: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_NODES):
        if not pending:
            return
        node = pending.pop()
        if isinstance(node, dict):
            yield from twin_violations(field, list(node))
        inside = node.values() if isinstance(node, dict) else node
        pending.extend(each for each in inside if isinstance(each, dict | list))
    yield Violation(field, f"holds more than {MAX_SCHEMA_NODES} objects and arrays; write a smaller contract")


def refusal(kind: str, name: str, violations: Sequence[Violation]) -> dict[str, Any]:
    """The ``metav1.Status`` of a refusal, a cause for each field (at most ``MAX_SHOWN``): 422 ``Invalid``, or 403
    ``Forbidden`` where one of them is about who asks, not about what is asked."""
    forbidden = any(each.reason == FORBIDDEN for each in violations)
    shown = violations[:MAX_SHOWN]
    more = len(violations) - len(shown)
    lines = [f"{each.field}: {each.text}" for each in shown]
    if more:
        lines.append(f"and {more} more")
    causes = [{"reason": each.reason, "field": each.field, "message": each.text} for each in shown]
    if more:
        causes.append({"reason": "FieldValueInvalid", "field": "spec", "message": f"{more} more are not shown"})
    return {
        "status": "Failure",
        "code": 403 if forbidden else 422,
        "reason": FORBIDDEN if forbidden else "Invalid",
        "message": "; ".join(lines),
        "details": {"group": "triplane.dev", "kind": kind, "name": name, "causes": causes},
    }
