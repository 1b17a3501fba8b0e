"""What Tasks depend on one another, over the part of a namespace that is known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Known = Mapping[str, Sequence[str]]
"""Name of a Task to the names of those it waits for; a name without an entry does not exist (yet)."""


def stored_dependencies(task: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a Task as the API server holds it, whatever release wrote it; sorted."""
    spec = task.get("spec") or {}
    names: set[str] = {str(name) for name in spec.get("dependsOn") or ()}
    for item in spec.get("inputs") or ():
        edges: Iterable[Any] = [item["from"]] if item.get("from") else item.get("sources") or ()
        names.update(str(edge["task"]) for edge in edges if edge.get("task"))
    return tuple(sorted(names))


def cycle_through(name: str, known: Known) -> tuple[str, ...] | None:
    """The shortest way from ``name`` back to itself, both ends included; None when there is none.

    Of several equally short ones always the same.
    """
    came_from: dict[str, str] = {}
    level = [name]
    while level:
        following = []
        for current in level:
            for dependency in known.get(current, ()):
                if dependency == name:
                    way = [current]
                    while way[-1] != name:
                        way.append(came_from[way[-1]])
                    return (*reversed(way), name)
                if dependency not in came_from:
                    came_from[dependency] = current
                    following.append(dependency)
        level = following
    return None
