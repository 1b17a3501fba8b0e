"""Authority: what may be used, and what may be handed on. It only narrows on the way down.

Two sets with the same axes: *mayUse* is what somebody may exercise, *mayDelegate* what they may give to what is beneath
them; mayUse ⊆ mayDelegate. A child's mayDelegate ⊆ its parent's mayDelegate. An axis that is absent is inherited from
the parent's set of the same name, never unlimited; an empty list is nothing at all. The decisions are in
``triplane.domain.authority``.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from triplane.api.meta import Model
from triplane.api.text import ObjectName, RelativePath

MAX_PATTERNS = 64
"""Patterns of one axis."""


class Axis(StrEnum):
    """Along which authority is measured; the spelling is that of the API."""

    TOOLS = "tools"
    CAPABILITIES = "capabilities"
    HARNESSES = "harnesses"
    MODELS = "models"
    EGRESS = "egress"
    SECRETS = "secrets"
    PATHS = "paths"
    TOKENS = "budget.tokens"
    COST = "budget.costMinorUnits"
    SECONDS = "budget.wallClockSeconds"
    SESSIONS = "budget.sessions"
    DEPTH = "delegationDepth"
    EXPIRY = "expiresAt"


_PATTERN = r"^[A-Za-z0-9_.:@/*-]+$"
Pattern = Annotated[str, Field(min_length=1, max_length=253, pattern=_PATTERN)]
"""A name in which ``*`` stands for any characters but ``/``, and ``**`` alone for everything."""
EgressPattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^(\*|(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9a-fA-F:.]+(/[0-9]{1,3})?|\[[0-9a-fA-F:]+\](/[0-9]{1,3})?)(:[0-9]{1,5})?$",
    ),
]
"""``host``, ``*.domain``, an address or a CIDR block, or ``*`` (every public host), with an optional ``:port`` (absent:
443). Private, loopback, link-local and metadata addresses are reached only by an address or a block that names them."""
PathPattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        pattern=r"^(\*\*|[A-Za-z0-9_*][A-Za-z0-9._*-]*(/[A-Za-z0-9_*][A-Za-z0-9._*-]*)*)(:rw)?$",
    ),
]
"""A path under the folder the runner's owner shares, and everything beneath; ``:rw`` may be written."""


class Budget(Model):
    """What may be spent, by everything beneath the object that carries it, together."""

    tokens: Annotated[int | None, Field(ge=0, le=2**53 - 1, description="Input and output tokens.")] = None
    cost_minor_units: Annotated[
        int | None, Field(ge=0, le=2**53 - 1, description="Cost in minor units of the currency.")
    ] = None
    wall_clock_seconds: Annotated[
        int | None, Field(ge=0, le=2**31 - 1, description="Time of all runs together, in seconds.")
    ] = None
    sessions: Annotated[int | None, Field(ge=0, le=2**31 - 1, description="Sessions that have begun.")] = None


_SET = {"x-kubernetes-list-type": "set"}


class Grant(Model):
    """One of the two sets. An absent axis is inherited; an empty list grants nothing."""

    tools: Annotated[
        list[Pattern] | None,
        Field(max_length=MAX_PATTERNS, description="Tools, as `tool/operation` patterns.", json_schema_extra=_SET),
    ] = None
    capabilities: Annotated[
        list[Pattern] | None,
        Field(max_length=MAX_PATTERNS, description="Names of Capabilities.", json_schema_extra=_SET),
    ] = None
    harnesses: Annotated[
        list[Pattern] | None, Field(max_length=MAX_PATTERNS, description="Names of Harnesses.", json_schema_extra=_SET)
    ] = None
    models: Annotated[
        list[Pattern] | None, Field(max_length=MAX_PATTERNS, description="Names of models.", json_schema_extra=_SET)
    ] = None
    egress: Annotated[
        list[EgressPattern] | None,
        Field(
            max_length=MAX_PATTERNS,
            description="Hosts that may be reached: `host`, `*.domain`, address, block or `*`, with `:port` (443).",
            json_schema_extra=_SET,
        ),
    ] = None
    secrets: Annotated[
        list[Pattern] | None,
        Field(max_length=MAX_PATTERNS, description="Names of Secrets in the namespace.", json_schema_extra=_SET),
    ] = None
    paths: Annotated[
        list[PathPattern] | None,
        Field(
            max_length=MAX_PATTERNS,
            description="Paths under the runner's shared folder; `:rw` may be written.",
            json_schema_extra=_SET,
        ),
    ] = None
    budget: Annotated[Budget | None, Field(description="What may be spent; absent amounts are inherited.")] = None
    delegation_depth: Annotated[
        int | None, Field(ge=0, le=64, description="How many levels may follow beneath; each has one less.")
    ] = None
    expires_at: Annotated[
        str | None,
        Field(max_length=40, description="After this time nothing runs.", json_schema_extra={"format": "date-time"}),
    ] = None


class Authority(Model):
    """What may be used, and what may be handed on. Absent: inherited."""

    may_use: Annotated[Grant | None, Field(description="What it may exercise itself; within mayDelegate.")] = None
    may_delegate: Annotated[Grant | None, Field(description="What may be given to what is beneath it.")] = None


class SecretKey(Model):
    """One key of a Secret; it launches only where authority grants the Secret."""

    name: Annotated[ObjectName, Field(description="Name of the Secret, in the same namespace.")]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in it.")]


class SecretUse(SecretKey):
    """One key of a Secret that a process needs in its environment."""

    env: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Z][A-Z0-9_]*$",
            description="Environment variable of the process that holds the value.",
        ),
    ]


class PathUse(Model):
    """A file or folder under the runner's shared folder that the run sees at ``/work/shared/<path>``."""

    path: Annotated[RelativePath, Field(description="Relative to the runner's shared folder.")]
    writable: Annotated[bool, Field(description="Whether the run may change it; needs `:rw` authority.")] = False
