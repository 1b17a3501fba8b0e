"""What is asked for: the work of a Task, and the same as a step of a Workflow or a Node.

A step depends on others by ``dependsOn`` (order alone) and by the *edges* of its inputs (order and content). Names
of steps stand in a Workflow or a Node; the Tasks made of them name each other.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from triplane.api.authority import Authority, PathUse, SecretUse
from triplane.api.meta import ApprovalPolicy, InputType, LocalRef, Model, Output, ReviewPolicy, Rule
from triplane.api.text import CAPABILITY_REF, PLAIN_POINTER, PLAIN_TEXT, Digest, Line, LocalName, ObjectName, Prose

MAX_STEPS = 256
"""Steps of one Workflow or Node."""
MAX_DEPENDENCIES = 64
"""What one step or Task may wait for (fan-in), ``dependsOn`` and edges together."""
MAX_DEPENDENTS = 128
"""How many steps may wait for one (fan-out)."""
MAX_DEPTH = 64
"""Steps on the longest path through a Workflow or a Node."""
MAX_CONDITION = 1024
"""Characters of a CEL condition."""

Condition_ = Annotated[str, Field(min_length=1, max_length=MAX_CONDITION, pattern=PLAIN_TEXT)]
"""A CEL expression with a boolean value over ``steps`` and ``parameters`` (docs/reference/conditions-in-cel.md)."""
CapabilityRef = Annotated[str, Field(min_length=1, max_length=70, pattern=CAPABILITY_REF)]
"""``name`` (its newest published version) or ``name@version``."""
Pointer = Annotated[str, Field(max_length=256, pattern=PLAIN_POINTER)]
"""A JSON Pointer (RFC 6901); the empty one is the whole document."""


class Merge(StrEnum):
    """How the contents of several edges become one input. Edges whose step was skipped, or whose condition does
    not hold, bring nothing."""

    LAST_WRITE_WINS = "LastWriteWins"
    """The last edge of the list that brings something."""
    CONCAT = "Concat"
    """The octets one after the other, in the order of the list; a newline between texts that lack one."""
    ARRAY = "Array"
    """A JSON array of the documents (text becomes a string), in the order of the list."""
    JSON_OBJECT = "JsonObject"
    """A JSON object: each edge's document at its ``to``, by default under the name of its step."""


class Edge(Model):
    """Where an input, or a part of it, comes from: an accepted output, or a value inside it."""

    step: Annotated[
        LocalName | None, Field(description="Step of the same Workflow or Node; in a Task name the `task`.")
    ] = None
    task: Annotated[ObjectName | None, Field(description="Task in the same namespace whose output is used.")] = None
    output: Annotated[LocalName, Field(description="Name of its output.")]
    path: Annotated[
        Pointer | None, Field(description="JSON Pointer to a value inside the output; absent: the whole output.")
    ] = None
    to: Annotated[
        Pointer | None,
        Field(description="JSON Pointer into the input where the value is put; only with merge JsonObject."),
    ] = None
    when: Annotated[Condition_ | None, Field(description="CEL: the edge brings nothing unless it is true.")] = None


class Input(Model):
    """One read-only input: a stored blob, a literal text, or what other steps have produced."""

    name: Annotated[LocalName, Field(description="Name under /work/inputs.")]
    digest: Annotated[
        Digest | None, Field(description="Digest of a blob stored in this namespace with `triplane blob put`.")
    ] = None
    value: Annotated[
        str | None,
        Field(
            max_length=16384, pattern=PLAIN_TEXT, description="The content itself; `[[name]]` stands for a parameter."
        ),
    ] = None
    from_: Annotated[
        Edge | None,
        Field(alias="from", description="Take one accepted output; waits until it is accepted."),
    ] = None
    sources: Annotated[
        list[Edge] | None,
        Field(min_length=1, max_length=MAX_DEPENDENCIES, description="Take several accepted outputs, merged into one."),
    ] = None
    merge: Annotated[Merge | None, Field(description="How `sources` become one; default LastWriteWins.")] = None
    type: Annotated[
        InputType,
        Field(description="File: the blob itself. Directory: a tar made by `triplane blob put`, unpacked."),
    ] = InputType.FILE

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges that feed this input, in order."""
        return (self.from_,) if self.from_ is not None else tuple(self.sources or ())


class RetryPolicy(Model):
    """How long to wait before the next run: ``backoffSeconds × 2^(failures − 1)``, at most ``maxBackoffSeconds``,
    less up to a fifth of it at random."""

    backoff_seconds: Annotated[int, Field(ge=0, le=3600, description="Wait after the first failure.")] = 2
    max_backoff_seconds: Annotated[int, Field(ge=0, le=86400, description="Longest wait.")] = 300


_SET = {"x-kubernetes-list-type": "set"}
_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Work(Model):
    """What a Task asks for; a step of a Workflow or a Node has the same fields."""

    objective: Annotated[Prose, Field(min_length=1, description="What must be achieved.")]
    definition_of_done: Annotated[
        Prose | None,
        Field(description="How a reviewer tells that it is done; given to producer and reviewer."),
    ] = None
    agent_ref: Annotated[LocalRef | None, Field(description="The Agent that does the work.")] = None
    required_capabilities: Annotated[
        list[CapabilityRef] | None,
        Field(
            max_length=16,
            description="Capabilities the Agent must have, as `name` or `name@version`; the lens of a Capability of "
            "that name holds: its instructions and contracts.",
            json_schema_extra=_SET,
        ),
    ] = None
    capability_parameters: Annotated[
        dict[str, Annotated[str, Field(max_length=4096, pattern=PLAIN_TEXT)]] | None,
        Field(max_length=64, description="Values of the parameters `[[label]]` of the required Capabilities."),
    ] = None
    model: Annotated[Line | None, Field(description="Model to use instead of the Agent's.")] = None
    when: Annotated[
        Condition_ | None, Field(description="CEL over what it depends on: the step is skipped unless it is true.")
    ] = None
    inputs: Annotated[
        list[Input] | None,
        Field(max_length=32, description="Read-only inputs of the run.", json_schema_extra=_BY_NAME),
    ] = None
    outputs: Annotated[
        list[Output] | None,
        Field(
            max_length=16,
            description="Outputs the run must leave, beside those its Capabilities' contracts name.",
            json_schema_extra=_BY_NAME,
        ),
    ] = None
    tools: Annotated[
        list[ObjectName] | None,
        Field(
            max_length=32,
            description="Tools the run is offered; it launches only where authority grants them.",
            json_schema_extra=_SET,
        ),
    ] = None
    secrets: Annotated[
        list[SecretUse] | None,
        Field(
            max_length=16,
            description="Secrets the harness needs; it launches only where authority grants them.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["env"]},
        ),
    ] = None
    paths: Annotated[
        list[PathUse] | None,
        Field(
            max_length=16,
            description="What the run sees of the runner's shared folder; it launches only where authority grants it.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["path"]},
        ),
    ] = None
    authority: Annotated[Authority | None, Field(description="What it may use; within what its parent delegates.")] = (
        None
    )
    approval: Annotated[
        ApprovalPolicy | None, Field(description="A person's leave, before a producing session is launched.")
    ] = None
    review: Annotated[ReviewPolicy | None, Field(description="Who reviews; default: capability `review`.")] = None
    max_retries: Annotated[
        int,
        Field(ge=0, le=10, description="Runs after one that failed by the agent's doing; lost runners do not count."),
    ] = 1
    retry: Annotated[RetryPolicy, Field(description="How long to wait between runs.")] = RetryPolicy()
    max_reworks: Annotated[int, Field(ge=0, le=10, description="Runs after a rejected review.")] = 1
    timeout_seconds: Annotated[
        int,
        Field(ge=1, le=86400, description="Longest time one run may take; then its process tree is killed."),
    ] = 3600
    idle_timeout_seconds: Annotated[
        int | None,
        Field(ge=1, le=86400, description="Longest silence of a run (nothing reported); then it is killed."),
    ] = None

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges of every input, in order."""
        return tuple(edge for item in self.inputs or () for edge in item.edges)


class Step(Work):
    """One step; the operator makes a Task named ``<node>-<step>`` of it."""

    name: Annotated[LocalName, Field(description="Name of the step, unique in the Workflow or Node.")]
    depends_on: Annotated[
        list[LocalName] | None,
        Field(
            max_length=MAX_DEPENDENCIES,
            description="Steps that must be accepted or skipped before it, beside those its inputs come from.",
            json_schema_extra=_SET,
        ),
    ] = None


Steps = Annotated[
    list[Step],
    Field(
        min_length=1,
        max_length=MAX_STEPS,
        description="The steps, in any order; what they depend on makes the graph.",
        json_schema_extra=_BY_NAME,
    ),
]

ONE_ASSIGNEE = Rule(
    "has(self.agentRef) || (has(self.requiredCapabilities) && size(self.requiredCapabilities) > 0)",
    "name an agentRef, or requiredCapabilities to choose an Agent by",
)
ONE_REVIEWER = Rule(
    "!has(self.review) || !has(self.review.agentRef) || !has(self.review.capability)",
    "name at most one of review.agentRef and review.capability",
)
ENOUGH_REVIEWERS = Rule(
    "!has(self.review) || !has(self.review.people) || self.review.reviewers > "
    "(has(self.review.agentRef) || has(self.review.capability) ? 1 : 0)",
    "with review.people beside agentRef or capability, review.reviewers must be 2 or more: one of each reviews",
)
ONE_SOURCE = Rule(
    "!has(self.inputs) || self.inputs.all(i, [has(i.digest), has(i.value), has(i.from), has(i.sources)]"
    ".filter(x, x).size() == 1)",
    "each input has exactly one of digest, value, from and sources",
)
MERGED_SOURCES = Rule(
    "!has(self.inputs) || self.inputs.all(i, !has(i.merge) || has(i.sources))",
    "merge is for inputs with sources",
)
RESERVED_INPUT = Rule(
    "!has(self.inputs) || self.inputs.all(i, i.name != 'outputs')",
    "an input may not be named outputs: reviewers find the outputs under that name",
)
UNIQUE_OUTPUT_PATHS = Rule(
    "!has(self.outputs) || self.outputs.all(o, self.outputs.filter(p, p.path == o.path).size() == 1)",
    "two outputs have the same path",
)
PROSE_CAP = Rule(
    "size(bytes(self.objective)) + (has(self.definitionOfDone) ? size(bytes(self.definitionOfDone)) : 0) <= 131072",
    "objective and definitionOfDone together exceed 128 KiB of UTF-8: put longer text into an input",
)
PARAMETER_NAMES = Rule(
    "!has(self.parameters) || self.parameters.all(k, k.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'))",
    "names of parameters are lower case letters, digits and hyphens, at most 63",
)
WORK_RULES = (
    ONE_ASSIGNEE,
    ONE_REVIEWER,
    ENOUGH_REVIEWERS,
    ONE_SOURCE,
    MERGED_SOURCES,
    RESERVED_INPUT,
    UNIQUE_OUTPUT_PATHS,
    PROSE_CAP,
)
STEP_RULES = tuple(
    Rule(f"!has(self.steps) || self.steps.all(s, {rule.rule.replace('self.', 's.')})", rule.message)
    for rule in WORK_RULES
)
"""The same, of every step of a Workflow or a Node."""
