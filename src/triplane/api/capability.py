"""Capability: a lens: instructions with parameters, and contracts of what goes in and what must come out.

What stands in the spec itself is the *draft*. ``triplane capability publish`` copies it into ``versions``; a published
version never changes, it is only archived. Tasks get the newest published version that is not archived, the one they
name (``name@2``), or, while nothing is published, the draft.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, JsonValue

from triplane.api.meta import Column, Conditions, KindInfo, Model, Output, Resource, Rule, StatusModel
from triplane.api.text import PLAIN_TEXT, Line, LocalName, MediaType, Prose

MAX_VERSIONS = 32


class Category(StrEnum):
    """What the lens is for."""

    INSTRUCTION = "Instruction"
    RESEARCH = "Research"
    PLANNING = "Planning"
    GENERATION = "Generation"
    VALIDATION = "Validation"
    ROUTING = "Routing"
    MEMORY = "Memory"
    EXPORT = "Export"


class LabelType(StrEnum):
    """What the value of a lens parameter must be; it is text in every case."""

    TEXT = "Text"
    TEXTAREA = "Textarea"
    JSON = "Json"
    NUMBER = "Number"
    INTEGER = "Integer"
    FLOAT = "Float"
    DECIMAL = "Decimal"
    BOOLEAN = "Boolean"
    SELECT = "Select"
    URL = "Url"
    DATE = "Date"
    DATETIME = "Datetime"
    FILE = "File"
    """A digest ``sha256:…`` of a blob stored in the namespace."""


class Label(Model):
    """A parameter: ``[[name]]`` in the instructions stands for its value."""

    name: Annotated[LocalName, Field(description="Name of the parameter.")]
    type: Annotated[LabelType, Field(description="What its value must be.")] = LabelType.TEXT
    description: Annotated[Line | None, Field(description="What it is for.")] = None
    default: Annotated[
        str | None,
        Field(max_length=4096, pattern=PLAIN_TEXT, description="Value when a Task sets none; absent: it must."),
    ] = None
    options: Annotated[list[Line] | None, Field(max_length=64, description="The values a Select may have.")] = None


class InputContract(Model):
    """An input the Task must bring."""

    name: Annotated[LocalName, Field(description="Name of the input.")]
    media_type: Annotated[MediaType | None, Field(description="`application/json`: it must be JSON.")] = None
    json_schema: Annotated[
        dict[str, Any] | None,
        Field(
            alias="schema",
            max_length=64,
            description="JSON Schema (2020-12) it must meet.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None


_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Lens(Model):
    """What a run that exercises the Capability gets and must leave."""

    instructions: Annotated[
        Prose | None,
        Field(description="Given to every run that exercises the capability, and pinned by digest."),
    ] = None
    parameters: Annotated[
        list[Label] | None,
        Field(max_length=64, description="What a Task may set.", json_schema_extra=_BY_NAME),
    ] = None
    inputs: Annotated[
        list[InputContract] | None,
        Field(max_length=32, description="Inputs a Task must bring.", json_schema_extra=_BY_NAME),
    ] = None
    outputs: Annotated[
        list[Output],
        Field(
            default_factory=list,
            max_length=32,
            description="Output contract: what a run must leave, with media type and JSON Schema.",
            json_schema_extra=_BY_NAME,
        ),
    ]


def _same(field: str) -> JsonValue:
    """Of one version before and after: a list map correlates them by their key (Kubernetes, "Transition rules"). Said
    of the item, for a rule on a field is not asked when the field goes or comes."""
    rule = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return {"rule": rule, "message": f"{field} of a published version never change: publish another"}


_KEPT: list[JsonValue] = [
    *map(_same, ("instructions", "parameters", "inputs", "outputs")),
    {"rule": "self.archived || !oldSelf.archived", "message": "archived cannot be taken back: publish another"},
]


class PublishedLens(Lens):
    """A version that never changes."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _KEPT})
    version: Annotated[int, Field(ge=1, le=999999, description="Number, rising.")]
    archived: Annotated[bool, Field(description="Nobody gets it any more but those who name it.")] = False


class CapabilitySpec(Lens):
    """What people declare of a Capability: the draft, and what was published of it."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    category: Annotated[Category | None, Field(description="What it is for.")] = None
    versions: Annotated[
        list[PublishedLens] | None,
        Field(
            max_length=MAX_VERSIONS,
            description="Published versions; immutable.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]},
        ),
    ] = None


class CapabilityStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    version: Annotated[int | None, Field(ge=1, description="Newest published version that is not archived.")] = None
    conditions: Conditions


class Capability(Resource):
    """What an Agent can do: instructions and the contracts of what goes in and comes out."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="capabilities",
        short_names=("tcap",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Version", ".status.version", "integer"),
            Column("Title", ".spec.title", priority=1),
        ),
        ready_condition="Ready",
        spec_rules=(
            Rule(
                "!has(oldSelf.versions) || (has(self.versions) && oldSelf.versions.all(o, self.versions.exists(n, "
                "n.version == o.version)))",
                "a published version stays: publish another, or set archived",
            ),
        ),
    )
    spec: CapabilitySpec
    status: CapabilityStatus | None = None
