"""Whether a Task may begin: what it depends on, its condition, and its inputs, in this order.

Asked only until an Agent is placed: what other Tasks have become by then is final.
"""

from triplane.domain.task_facts import ComposeInputs, FailTask, Plan, SkipTask, TaskFacts
from triplane.domain.task_needs import Dependency, Standing
from triplane.domain.task_outlook import awaiting, blocked, unresolved

CONTAINERS = frozenset({"GraphNotFound", "NodeNotFound"})
"""What a Task belongs to: before that exists, nothing is decided under it."""


def unready(facts: TaskFacts) -> Plan | ComposeInputs | SkipTask | FailTask | None:
    """Why it does not begin, or what must be done first; None when an Agent may be placed."""
    if any(reason in CONTAINERS for reason, _ in facts.missing):
        return Plan(None, unresolved(facts.missing))
    return _dependencies(facts) or _condition(facts) or _inputs(facts)


def _dependencies(facts: TaskFacts) -> Plan | FailTask | None:
    failed = [item for item in facts.dependencies if item.standing is Standing.FAILED]
    if failed:
        said = "; ".join(f"Task {item.name} ended without being accepted ({item.reason})" for item in failed)
        return FailTask("DependencyFailed", f"{said}: what this Task needs will not come"[:1024], 1)
    if facts.cycle:
        way = " → ".join(facts.cycle)
        return Plan(
            None,
            blocked(
                "DependencyCycle",
                f"These Tasks wait for one another, so that none can begin: {way}. Delete one and make it anew without "
                "that dependency",
            ),
        )
    missing = [item.name for item in facts.dependencies if item.standing is Standing.MISSING]
    if missing:
        absent = [("TaskNotFound", f"Task {name}, which must come first, does not exist; apply it") for name in missing]
        return Plan(None, unresolved([*facts.missing, *absent]))
    waiting = [item.name for item in facts.dependencies if not item.settled]
    if not waiting:
        return None
    if facts.missing:
        return Plan(None, unresolved(facts.missing))
    # Known already, and no result of those Tasks will change it: whoever can mend it need not wait for them.
    return Plan(None, awaiting(waiting) if facts.unmet is None else blocked(*facts.unmet))


def _condition(facts: TaskFacts) -> SkipTask | FailTask | None:
    if isinstance(facts.condition, str):
        return FailTask("ConditionFailed", facts.condition[:1024], 1)
    if facts.condition is not False:
        return None
    return SkipTask("ConditionFalse", f"Its condition is false: {facts.task.spec.when}", _states(facts.dependencies))


def _inputs(facts: TaskFacts) -> SkipTask | FailTask | ComposeInputs | None:
    for item in facts.found:
        if item.failed is not None:
            return FailTask(item.failed[0], item.failed[1][:1024], 1)
    empty = [item.name for item in facts.found if item.nothing]
    if empty:
        return SkipTask(
            "InputsSkipped",
            f"Nothing was produced for input {', '.join(empty)}: what it comes from was skipped, or its conditions are "
            "false",
            _states(facts.dependencies),
        )
    compositions = tuple(item.composition for item in facts.found if item.composition is not None)
    return ComposeInputs(compositions) if compositions else None


def _states(dependencies: tuple[Dependency, ...]) -> dict[str, str]:
    return {item.step: item.standing.value for item in dependencies}
