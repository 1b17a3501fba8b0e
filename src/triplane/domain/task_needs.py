"""What a Task needs from other Tasks: which they are, how they stand, and what their outputs bring it.

Names of Tasks are addresses: a Task that does not exist yet is waited for, and found when it appears.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from triplane.api.meta import InputType
from triplane.api.task import Task
from triplane.api.work import Edge, Input, Merge
from triplane.audit.digest import digest_of_bytes
from triplane.domain.merge import Part, Unmergeable, merge

MAX_WALK: Final = 4096
"""Tasks looked at in search of a cycle."""


class Standing(StrEnum):
    """How a Task that another one depends on stands."""

    MISSING = "missing"
    OPEN = "open"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AcceptedOutput:
    """One output of an accepted Task."""

    digest: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Dependency:
    """A Task that must be settled before this one."""

    name: str
    step: str
    """What conditions and messages call it: its step, else its name."""
    standing: Standing
    uid: str = ""
    reason: str = ""
    """Why it failed."""
    outputs: Mapping[str, AcceptedOutput] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        return self.standing in (Standing.COMPLETED, Standing.SKIPPED)


@dataclass(frozen=True, slots=True)
class ComposedEdge:
    """One edge that went into a composed input, as it is logged."""

    task_uid: str
    step: str
    output: str
    digest: str
    path: str | None = None
    to: str | None = None

    def data(self) -> dict[str, str]:
        """Structured facts for the log; absent ones are left out."""
        facts = {
            "taskUid": self.task_uid,
            "step": self.step,
            "output": self.output,
            "digest": self.digest,
            "path": self.path,
            "to": self.to,
        }
        return {key: value for key, value in facts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Composition:
    """An input made of what other Tasks produced, to be stored and logged."""

    input: str
    merge: Merge
    octets: bytes = field(repr=False)
    digest: str
    edges: tuple[ComposedEdge, ...]


@dataclass(frozen=True, slots=True)
class InputFound:
    """How one input stands once everything the Task depends on is settled."""

    name: str
    type: InputType
    digest: str | None = None
    composition: Composition | None = None
    """To be recorded before the input can be used."""
    failed: tuple[str, str] | None = None
    """``(reason, message)``: it can never be had."""
    absent: bool = False
    """What it is made of is not in the content store now."""

    @property
    def nothing(self) -> bool:
        """No edge of it brings anything."""
        return self.digest is None and self.composition is None and self.failed is None and not self.absent


def dependency_names(task: Task) -> tuple[str, ...]:
    """Names of the Tasks it waits for: ``dependsOn``, then the edges in order, each once."""
    names = [*(task.spec.depends_on or ()), *(edge.task for edge in task.spec.edges if edge.task is not None)]
    return tuple(dict.fromkeys(names))


def find_cycle(start: str, dependencies: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    """The shortest way from ``start`` over what each depends on back to it (``a, b, a``); empty when there is none
    within ``MAX_WALK`` Tasks."""
    came_from: dict[str, str] = {}
    frontier = [start]
    while frontier and len(came_from) < MAX_WALK:
        following = []
        for name in frontier:
            for needed in dependencies(name):
                if needed == start:
                    return (start, *reversed(_way_back(name, start, came_from)), start)
                if needed not in came_from:
                    came_from[needed] = name
                    following.append(needed)
        frontier = following
    return ()


def _way_back(name: str, start: str, came_from: Mapping[str, str]) -> list[str]:
    way = []
    while name != start:
        way.append(name)
        name = came_from[name]
    return way


def variables(
    dependencies: Sequence[Dependency], documents: Mapping[str, Any], parameters: Mapping[str, str]
) -> dict[str, Any]:
    """What a condition sees (docs/reference/conditions-in-cel.md). ``documents`` are parsed outputs by digest."""
    steps = {}
    for item in dependencies:
        outputs = {}
        for name, output in item.outputs.items():
            seen: dict[str, Any] = {
                "digest": output.digest,
                "size": output.size,
                "mediaType": output.media_type,
            }
            if output.digest in documents:
                seen["json"] = documents[output.digest]
            outputs[name] = seen
        steps[item.step] = {"state": item.standing.value, "outputs": outputs}
    return {"steps": steps, "parameters": dict(parameters)}


def bringing(item: Input, dependencies: Mapping[str, Dependency], holds: Mapping[str, bool]) -> tuple[Edge, ...]:
    """The edges of an input that bring something: the step was not skipped, and the condition holds."""
    return tuple(
        edge
        for edge in item.edges
        if edge.task is not None
        and dependencies[edge.task].standing is Standing.COMPLETED
        and (edge.when is None or holds[edge.when])
    )


def output_missing(item: Input, edges: Sequence[Edge], dependencies: Mapping[str, Dependency]) -> str | None:
    """What is said of an edge to an output that its step was accepted without; None when there is no such edge."""
    for edge in edges:
        assert edge.task is not None
        source = dependencies[edge.task]
        if edge.output not in source.outputs:
            has = ", ".join(sorted(source.outputs)) or "none"
            return (
                f"input {item.name} takes output {edge.output} of Task {edge.task}, which was accepted with: {has}. "
                "Make a new Task that names one of these"
            )
    return None


def is_plain(item: Input) -> bool:
    """One whole output, used as it is: nothing is composed."""
    return item.from_ is not None and item.from_.path is None


def compose(
    item: Input, edges: Sequence[Edge], dependencies: Mapping[str, Dependency], contents: Mapping[str, bytes]
) -> Composition:
    """The input made of what the edges bring (at least one; ``contents`` by digest). Raises ``Unmergeable``."""
    how = item.merge or Merge.LAST_WRITE_WINS
    chosen = edges[-1:] if how is Merge.LAST_WRITE_WINS else edges
    parts, composed = [], []
    for edge in chosen:
        assert edge.task is not None
        source = dependencies[edge.task]
        output = source.outputs[edge.output]
        parts.append(Part(source.step, edge.output, contents[output.digest], output.media_type, edge.path, edge.to))
        composed.append(ComposedEdge(source.uid, source.step, edge.output, output.digest, edge.path, edge.to))
    try:
        octets = merge(parts, how)
    except Unmergeable as error:
        raise Unmergeable(error.reason, f"input {item.name}: {error}") from error
    return Composition(item.name, how, octets, digest_of_bytes(octets), tuple(composed))


def distinct_steps(dependencies: Sequence[Dependency]) -> tuple[Dependency, ...]:
    """With names for conditions that mean one thing: where two share a step's name (they are of different Nodes),
    each goes by the name of its Task."""
    names = [item.step for item in dependencies]
    return tuple(replace(item, step=item.name) if names.count(item.step) > 1 else item for item in dependencies)
