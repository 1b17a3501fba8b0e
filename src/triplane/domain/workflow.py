"""Workflow: whether a set of steps is a graph that can be run, and in which order.

A step waits for those in its ``dependsOn`` and for those its edges come from. Admission refuses what ``problems``
names; the operator asks again, because a Workflow may have come by another way. Nothing here recurses, so a graph of
any shape within the limits is judged.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from triplane.api.work import (
    MAX_DEPENDENCIES,
    MAX_DEPENDENTS,
    MAX_DEPTH,
    MAX_STEPS,
    Edge,
    Input,
    Merge,
    Step,
)
from triplane.domain.naming import object_name
from triplane.domain.parameters import named_in

NAMED = 8
"""How many offenders one message names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be run: a reason (docs/reference/reasons.md), and a message that names the offender and
    says what to do."""

    reason: str
    message: str


def problems(
    steps: Sequence[Step], *, parameters: Collection[str] | None = None, node_name: str | None = None
) -> tuple[Problem, ...]:
    """Everything that is wrong with the steps as a graph; empty when they can be run. Pure and total.

    ``parameters``: names that ``[[name]]`` may stand for; None leaves them unchecked. ``node_name``: the Node that is
    to run them, when it is known: its Tasks' names must differ, and an edge from one of its own Tasks by name is an
    edge from that step.
    """
    repeated = sorted(name for name, times in Counter(step.name for step in steps).items() if times > 1)
    if repeated:  # what follows goes by name
        return (Problem("DuplicateStep", f"more than one step is named {_list(repeated)}; rename one"),)
    found = [*_too_many(steps), *_names(steps, node_name)]
    for step in steps:
        found += _references(step, {other.name for other in steps})
        for item in step.inputs or ():
            found += _edges(step, item)
        if parameters is not None:
            found += _parameters(step, parameters)
    graph = waits_for(steps, node_name)
    found += _widths(graph)
    if (cycle := find_cycle(graph)) is not None:
        found.append(Problem("DependencyCycle", cycle_message(cycle)))
    elif (longest := _longest_path(graph))[MAX_DEPTH:]:
        found.append(
            Problem(
                "LimitExceeded",
                f"{len(longest)} steps follow one another, from {longest[0]} to {longest[-1]}; "
                f"at most {MAX_DEPTH} may: split the Workflow",
            )
        )
    return tuple(found)


def dependencies(step: Step, own: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names of the steps a step waits for, each once: ``dependsOn`` first, then the edges in their order.

    ``own``: Task name to step name, of the Node's own Tasks, for edges that name one of them.
    """
    by_edge = (edge.step or (own or {}).get(edge.task or "") for edge in step.edges)
    return tuple(dict.fromkeys([*(step.depends_on or ()), *(name for name in by_edge if name)]))


def waits_for(steps: Sequence[Step], node_name: str | None = None) -> dict[str, tuple[str, ...]]:
    """Step to the steps it waits for, in declared order; names of unknown steps are left out."""
    names = {step.name for step in steps}
    own = {object_name(node_name, name): name for name in names} if node_name is not None else {}
    return {step.name: tuple(name for name in dependencies(step, own) if name in names) for step in steps}


def find_cycle(graph: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """A cycle as ``(a, b, …, a)`` where each waits for the next, or None. Names outside ``graph`` wait for nothing.

    Deterministic: the same graph always names the same cycle, beginning with its smallest name.
    """
    done: set[str] = set()
    for root in sorted(graph):
        path: list[str] = []
        place: dict[str, int] = {}
        stack = [(root, iter(sorted(graph.get(root, ()))))] if root not in done else []
        if stack:
            place[root] = 0
            path.append(root)
        while stack:
            name, following = stack[-1]
            after = next((other for other in following if other not in done), None)
            if after is None:
                stack.pop()
                done.add(name)
                del place[path.pop()]
            elif after in place:
                return _from_smallest(path[place[after] :])
            else:
                place[after] = len(path)
                path.append(after)
                stack.append((after, iter(sorted(graph.get(after, ())))))
    return None


def spell(cycle: Sequence[str]) -> str:
    """``a → b → a``."""
    return " → ".join(cycle)


def cycle_message(cycle: Sequence[str]) -> str:
    """What a condition or a refusal says of a cycle."""
    return f"the steps wait for each other: {spell(cycle)}; remove one of these dependencies"


def order(graph: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names such that each follows what it waits for; among those that may come next, in the order of ``graph``.

    Without a cycle in ``graph`` every name is there; with one, those that wait for it are left out.
    """
    rank = {name: place for place, name in enumerate(graph)}
    names = list(graph)
    left = {name: sum(1 for other in set(waits) if other in rank) for name, waits in graph.items()}
    dependents = _dependents(graph)
    ready = [rank[name] for name, count in left.items() if count == 0]
    heapify(ready)
    ordered = []
    while ready:
        name = names[heappop(ready)]
        ordered.append(name)
        for later in dependents.get(name, ()):
            left[later] -= 1
            if left[later] == 0:
                heappush(ready, rank[later])
    return tuple(ordered)


def depth(graph: Mapping[str, Sequence[str]]) -> int:
    """Steps on the longest path of a graph without cycles."""
    return len(_longest_path(graph))


def _dependents(graph: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, waits in graph.items():
        for other in dict.fromkeys(waits):
            if other in graph:
                found.setdefault(other, []).append(name)
    return found


def _longest_path(graph: Mapping[str, Sequence[str]]) -> list[str]:
    length: dict[str, int] = {}
    before: dict[str, str] = {}
    for name in order(graph):
        length[name] = 1
        for other in graph[name]:
            if length.get(other, 0) + 1 > length[name]:
                length[name], before[name] = length[other] + 1, other
    if not length:
        return []
    path = [max(length, key=lambda name: length[name])]
    while path[-1] in before:
        path.append(before[path[-1]])
    return path[::-1]


def _from_smallest(members: Sequence[str]) -> tuple[str, ...]:
    start = members.index(min(members))
    turned = [*members[start:], *members[:start]]
    return (*turned, turned[0])


def _too_many(steps: Sequence[Step]) -> list[Problem]:
    if len(steps) <= MAX_STEPS:
        return []
    return [Problem("LimitExceeded", f"there are {len(steps)} steps; at most {MAX_STEPS} may be: split the Workflow")]


def _names(steps: Sequence[Step], node_name: str | None) -> list[Problem]:
    if node_name is None:
        return []
    found = []
    by_task: dict[str, str] = {}
    for step in steps:
        first = by_task.setdefault(object_name(node_name, step.name), step.name)
        if first != step.name:
            message = f"steps {first} and {step.name} would both become Task {object_name(node_name, first)}"
            found.append(Problem("DuplicateStep", f"{message}; rename one of them, or the Node"))
    return found


def _references(step: Step, names: Collection[str]) -> list[Problem]:
    found = []
    unknown = [name for name in dependencies(step) if name not in names]
    if unknown:
        found.append(Problem("UnknownStep", f"step {step.name} depends on {_list(unknown)}, which is not a step here"))
    repeated = [name for name, times in Counter(step.depends_on or ()).items() if times > 1]
    if repeated:
        found.append(Problem("DuplicateEdge", f"step {step.name} lists {_list(repeated)} twice in dependsOn"))
    return found


def _edges(step: Step, item: Input) -> list[Problem]:
    found = []
    seen: set[tuple[str | None, ...]] = set()
    for edge in item.edges:
        where = f"input {item.name} of step {step.name}"
        if (edge.step is None) == (edge.task is None):
            found.append(Problem("EdgeInvalid", f"{where}: an edge names a step or a task, exactly one of the two"))
            continue
        if edge.to is not None and item.merge is not Merge.JSON_OBJECT:
            found.append(Problem("EdgeInvalid", f"{where}: `to` is only for merge JsonObject"))
        key = _edge_key(edge, item.merge)
        if key in seen:
            source = f"output {edge.output} of {edge.step or edge.task}"
            path = f" at {edge.path}" if edge.path else ""
            found.append(Problem("DuplicateEdge", f"{where}: {source}{path} is taken twice to the same place"))
        seen.add(key)
    return found


def _edge_key(edge: Edge, merge: Merge | None) -> tuple[str | None, ...]:
    """What an edge brings where; its condition is not part of it: two conditions are one, joined by ``||``."""
    place = edge.to if edge.to is not None else f"/{edge.step or edge.task}"
    return (edge.step, edge.task, edge.output, edge.path or "", place if merge is Merge.JSON_OBJECT else None)


def _parameters(step: Step, declared: Collection[str]) -> list[Problem]:
    used: dict[str, None] = {}
    literals = [item.value for item in step.inputs or ()]
    for text in (step.objective, step.definition_of_done, *literals, *(step.capability_parameters or {}).values()):
        used |= dict.fromkeys(named_in(text or ""))
    unknown = [f"[[{name}]]" for name in used if name not in declared]
    if not unknown:
        return []
    message = f"step {step.name} uses {_list(unknown)}, which is not a parameter; declare it, or part the brackets"
    return [Problem("ParameterUnknown", message)]


def _widths(graph: Mapping[str, Sequence[str]]) -> list[Problem]:
    found = []
    for name, waits in graph.items():
        if len(waits) > MAX_DEPENDENCIES:
            message = f"step {name} depends on {len(waits)} steps; at most {MAX_DEPENDENCIES} may be: merge in between"
            found.append(Problem("LimitExceeded", message))
    for name, later in _dependents(graph).items():
        if len(later) > MAX_DEPENDENTS:
            message = f"{len(later)} steps depend on step {name}; at most {MAX_DEPENDENTS} may: fan out in two stages"
            found.append(Problem("LimitExceeded", message))
    return found


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
