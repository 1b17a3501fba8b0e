"""Tool: what a run may call through its session host, which alone talks to the real server."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from triplane.api.authority import Pattern, SecretKey, SecretUse
from triplane.api.harness import Arguments, Entrypoint, EnvVar, Interpreter
from triplane.api.meta import Column, Conditions, KindInfo, Model, Resource, Rule, StatusModel
from triplane.api.text import Digest, Line, RelativePath, UserName


class EgressClass(StrEnum):
    """How far a call of the tool can reach: policies and people judge by it."""

    NONE = "None"
    """It computes; nothing leaves the runner."""
    INTERNAL = "Internal"
    """It reaches systems of the organisation."""
    EXTERNAL = "External"
    """It reaches the world."""


class HostedProgram(Model):
    """A program of a Tool, which the host runs in a sandbox of its own."""

    program: Annotated[RelativePath, Field(description="File or folder in the directory the runner's owner approves.")]
    digest: Annotated[Digest | None, Field(description="The content must have this digest.")] = None
    entrypoint: Entrypoint = None
    interpreter: Interpreter = "python3"
    secrets: Annotated[
        list[SecretUse] | None,
        Field(max_length=16, description="Secrets the process needs; the session's authority must grant each."),
    ] = None


class StdioServer(HostedProgram):
    """An MCP server the host starts as a process of its own sandbox, from the runner's approved programs."""

    args: Arguments
    env: Annotated[
        list[EnvVar],
        Field(
            default_factory=list,
            max_length=24,
            description="Environment of the process; nothing else is passed on.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]


class HttpServer(Model):
    """An MCP server that is there already (Streamable HTTP)."""

    url: Annotated[
        str,
        Field(
            max_length=1024,
            pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[!-~]*)?$",
            description="Its endpoint; plain http only on loopback. The session's authority must grant the host.",
        ),
    ]
    token: Annotated[SecretKey | None, Field(description="Secret sent as bearer token; the harness never sees it.")] = (
        None
    )


class BuiltinName(StrEnum):
    """Tools the session host has itself."""

    CLOCK = "clock"
    """Tells the time."""
    BLOBS = "blobs"
    """Reads the run's own inputs by name and range."""


class ExecTool(HostedProgram):
    """A program run once for each call: arguments as JSON on standard input, result on standard output."""

    input_schema: Annotated[
        dict[str, object] | None,
        Field(
            max_length=64,
            description="JSON Schema (2020-12) of the arguments.",
            json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None


class ToolSpec(Model):
    """What people declare of a Tool. An operation is what MCP calls a tool; its key is `<Tool>/<operation>`."""

    title: Annotated[Line | None, Field(description="Short title.")] = None
    description: Annotated[Line | None, Field(description="What it is for; shown to the model for exec tools.")] = None
    stdio: Annotated[StdioServer | None, Field(description="An MCP server started by the host.")] = None
    http: Annotated[HttpServer | None, Field(description="An MCP server that is there already.")] = None
    builtin: Annotated[BuiltinName | None, Field(description="A tool of the session host itself.")] = None
    exec_: Annotated[ExecTool | None, Field(alias="exec", description="A program run for each call.")] = None
    allow: Annotated[
        list[Pattern] | None,
        Field(
            max_length=64,
            description="Operations that may be called; absent: all.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    deny: Annotated[
        list[Pattern] | None,
        Field(
            max_length=64,
            description="Operations that may not, whatever `allow` says.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    requires_approval: Annotated[
        list[Pattern] | None,
        Field(
            max_length=64,
            description="Operations each call of which waits for a person's Review (gate Tool).",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    approvers: Annotated[
        list[UserName] | None,
        Field(min_length=1, max_length=32, description="Who may approve; needed with requiresApproval."),
    ] = None
    approval_timeout_seconds: Annotated[
        int, Field(ge=1, le=86400, description="How long a call waits for approval; then it is refused.")
    ] = 600
    egress: Annotated[EgressClass, Field(description="How far a call can reach.")] = EgressClass.NONE
    timeout_seconds: Annotated[int, Field(ge=1, le=3600, description="Longest time of one call.")] = 60
    cost_minor_units: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Cost of one call, counted against the budget.")
    ] = 0


class ToolStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    conditions: Conditions


class Tool(Resource):
    """What a run may call: an MCP server, a builtin, or a program."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="tools",
        short_names=("ttl",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Egress", ".spec.egress"),
            Column("Title", ".spec.title"),
        ),
        ready_condition="Ready",
        spec_rules=(
            Rule(
                "[has(self.stdio), has(self.http), has(self.builtin), has(self.exec)].filter(x, x).size() == 1",
                "a Tool is exactly one of stdio, http, builtin and exec",
            ),
            Rule("!has(self.requiresApproval) || has(self.approvers)", "requiresApproval needs approvers: name people"),
            Rule(
                "!has(self.http) || self.http.url.startsWith('https://') || "
                "self.http.url.matches('^http://(127[.][0-9.]+|localhost|\\\\[::1\\\\])(:[0-9]+)?(/.*)?$')",
                "plain http is for loopback addresses alone",
            ),
            Rule(
                "!has(self.stdio) || !has(self.stdio.env) || self.stdio.env.all(e, !e.name.startsWith('TRIPLANE_') && "
                "!e.name.startsWith('LD_') && !e.name.startsWith('PYTHON') && e.name != 'PATH' && e.name != 'HOME')",
                "TRIPLANE_*, LD_*, PYTHON*, PATH and HOME are set by the session host",
            ),
        ),
    )
    spec: ToolSpec
    status: ToolStatus | None = None
