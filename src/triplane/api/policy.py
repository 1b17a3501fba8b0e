"""Policy: rules in CEL that are asked before work is admitted and before it is launched.

Words and variables are those of Kubernetes' ValidatingAdmissionPolicy where it has them. A Policy binds its own
namespace; one in the namespace of the installation (``triplane-system``) binds all, or those it names.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from triplane.api.authority import Axis, Pattern
from triplane.api.meta import Column, Conditions, KindInfo, Model, Resource, Rule, StatusModel
from triplane.api.text import PLAIN_TEXT, Line, LocalName

MAX_EXPRESSION = 4096
"""Characters of one expression."""
MAX_SHOWN_VIOLATIONS = 20
Expression = Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION, pattern=PLAIN_TEXT)]


class Stage(StrEnum):
    """When a Policy is asked."""

    ADMISSION = "Admission"
    """When an object is created or updated: the early refusal."""
    LAUNCH = "Launch"
    """Before every run, on what the API server holds then: the guarantee."""


class Enforcement(StrEnum):
    """What a violation does."""

    DENY = "Deny"
    WARN = "Warn"
    """It goes through; the user is warned, at launch by an Event."""
    AUDIT = "Audit"
    """It goes through; it is only recorded."""


class Operation(StrEnum):
    """What is being done to the object (Admission)."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"


class SelectorOperator(StrEnum):
    """metav1.LabelSelectorOperator."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(Model):
    """metav1.LabelSelectorRequirement."""

    key: Annotated[str, Field(min_length=1, max_length=317, description="Label key.")]
    operator: Annotated[SelectorOperator, Field(description="How the values are meant.")]
    values: Annotated[
        list[Annotated[str, Field(max_length=63)]] | None,
        Field(
            max_length=64, description="Values, for In and NotIn.", json_schema_extra={"x-kubernetes-list-type": "set"}
        ),
    ] = None


class Selector(Model):
    """metav1.LabelSelector: all of it must hold; empty selects everything."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]] | None, Field(max_length=32, description="Labels with values.")
    ] = None
    match_expressions: Annotated[
        list[LabelRequirement] | None, Field(max_length=32, description="Further requirements.")
    ] = None


class PolicyKind(StrEnum):
    """Kinds a Policy may be about."""

    GRAPH = "Graph"
    NODE = "Node"
    WORKFLOW = "Workflow"
    TASK = "Task"
    AGENT = "Agent"
    HARNESS = "Harness"
    CAPABILITY = "Capability"
    TOOL = "Tool"
    GUIDELINE = "Guideline"
    REVIEW = "Review"


class PolicyMatch(Model):
    """What the Policy is about."""

    kinds: Annotated[
        list[PolicyKind],
        Field(min_length=1, max_length=16, description="Kinds.", json_schema_extra={"x-kubernetes-list-type": "set"}),
    ]
    operations: Annotated[
        list[Operation] | None,
        Field(
            min_length=1,
            max_length=2,
            description="At Admission: which operations; absent: both.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    namespaces: Annotated[
        list[Pattern] | None,
        Field(
            max_length=64,
            description="Of a Policy in triplane-system: namespaces it binds; absent: all.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    selector: Annotated[Selector | None, Field(description="Labels of the object; absent: all.")] = None


class Variable(Model):
    """A named expression; later ones and the rules see it as ``variables.name``; evaluated when first used."""

    name: Annotated[str, Field(max_length=63, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", description="Name.")]
    expression: Annotated[Expression, Field(description="CEL; any type.")]


class MatchCondition(Model):
    """The Policy is asked only if all of these are true."""

    name: Annotated[LocalName, Field(description="Name, for messages.")]
    expression: Annotated[Expression, Field(description="CEL; boolean.")]


class Validation(Model):
    """One rule."""

    expression: Annotated[Expression, Field(description="CEL; must be true.")]
    message: Annotated[Line | None, Field(description="What a violation says; default: the expression.")] = None
    message_expression: Annotated[
        Expression | None, Field(description="CEL; text that a violation says, when it can be evaluated.")
    ] = None
    reason: Annotated[
        str,
        Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$", description="Reason in one word, CamelCase."),
    ] = "PolicyDenied"


class PolicySpec(Model):
    """What admins declare of a Policy."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    contact: Annotated[Line | None, Field(description="Who can change it or grant an exception; refusals say so.")] = (
        None
    )
    match: Annotated[PolicyMatch, Field(description="What it is about.")]
    stages: Annotated[
        list[Stage],
        Field(
            min_length=1,
            max_length=2,
            description="When it is asked. Launch is for Tasks.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ]
    enforcement: Annotated[Enforcement, Field(description="What a violation does.")] = Enforcement.DENY
    params: Annotated[
        dict[str, Any] | None,
        Field(
            max_length=64,
            description="Values the expressions see as `params`.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None
    match_conditions: Annotated[
        list[MatchCondition] | None,
        Field(
            max_length=16,
            description="Asked first.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    variables: Annotated[
        list[Variable] | None,
        Field(
            max_length=32,
            description="Named expressions, in the order in which they may use each other.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    validations: Annotated[
        list[Validation] | None, Field(max_length=32, description="The rules; all must be true.")
    ] = None
    allow_unenforced: Annotated[
        list[Axis] | None,
        Field(
            max_length=16,
            description="Axes of authority that a run of a matching Task may go without where its executor cannot "
            "enforce them; otherwise it does not run there.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None


class ViolationStatus(StatusModel):
    """One violation, shortened; the log has it whole."""

    time: Annotated[str, Field(max_length=64, description="When (RFC 3339).")]
    stage: Annotated[Stage, Field(description="When the Policy was asked.")]
    enforcement: Annotated[Enforcement, Field(description="What was done.")]
    kind: Annotated[str, Field(max_length=63, description="Kind of the object.")]
    namespace: Annotated[str, Field(max_length=63, description="Its namespace.")]
    name: Annotated[str, Field(max_length=253, description="Its name.")]
    message: Annotated[str, Field(max_length=256, description="What was violated.")]
    seq: Annotated[int, Field(ge=0, description="Sequence of the log entry with all of it.")]


class PolicyStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    violation_count: Annotated[int, Field(ge=0, description="Violations recorded so far.")] = 0
    violations: Annotated[
        list[ViolationStatus],
        Field(default_factory=list, max_length=MAX_SHOWN_VIOLATIONS, description="The latest, newest first."),
    ]
    conditions: Conditions


class Policy(Resource):
    """Rules asked before work is admitted and before it is launched."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="policies",
        short_names=("tpol",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Enforcement", ".spec.enforcement"),
            Column("Stages", ".spec.stages"),
            Column("Violations", ".status.violationCount", "integer"),
            Column("Title", ".spec.title", priority=1),
        ),
        ready_condition="Ready",
        spec_rules=(
            Rule(
                "!('Launch' in self.stages) || 'Task' in self.match.kinds",
                "stage Launch is for Tasks: add Task to match.kinds, or leave Launch out",
            ),
            Rule(
                "(has(self.validations) && size(self.validations) > 0) || has(self.allowUnenforced)",
                "a Policy has validations, allowUnenforced, or both",
            ),
            Rule(
                "!has(self.allowUnenforced) || 'Launch' in self.stages",
                "allowUnenforced is read at Launch: add it to stages",
            ),
        ),
    )
    spec: PolicySpec
    status: PolicyStatus | None = None
