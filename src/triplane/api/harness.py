"""Harness: how an Agent is run. This version runs approved programs (`exec`) in a sandbox."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from triplane.api.meta import Column, Conditions, KindInfo, Model, Resource, Rule, StatusModel
from triplane.api.text import PLAIN_TEXT, Digest, RelativePath

EnvName = Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Z0-9_]*$")]


class EnvVar(Model):
    """One environment variable of the harness process."""

    name: Annotated[EnvName, Field(description="Name; TRIPLANE_*, LD_* and PYTHON* belong to the host.")]
    value: Annotated[str, Field(max_length=4096, pattern=PLAIN_TEXT, description="Value, taken literally.")]


Entrypoint = Annotated[RelativePath | None, Field(description="File to run when the program is a folder.")]
Interpreter = Annotated[
    Literal["python3", "none"], Field(description="python3: the runner's interpreter. none: run the file itself.")
]
Arguments = Annotated[
    list[Annotated[str, Field(max_length=1024, pattern=PLAIN_TEXT)]],
    Field(default_factory=list, max_length=64, description="Arguments, passed literally: no shell."),
]
"""How a program is run, of a Harness or of a Tool."""


class ExecHarness(Model):
    """A program run once per run, speaking the exec protocol (docs/reference/exec-protocol.md)."""

    program: Annotated[
        RelativePath | None,
        Field(description="File or folder in the directory the runner's owner approves."),
    ] = None
    digest: Annotated[
        Digest | None,
        Field(
            description="With program: the content must have this digest or the run refuses. "
            "Alone: the program is this blob, stored in the Harness's namespace."
        ),
    ] = None
    entrypoint: Entrypoint = None
    interpreter: Interpreter = "python3"
    args: Arguments
    env: Annotated[
        list[EnvVar],
        Field(
            default_factory=list,
            max_length=32,
            description="Environment of the process; nothing else is passed on.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]


class HarnessSpec(Model):
    """What people declare of a Harness."""

    exec_: Annotated[ExecHarness, Field(alias="exec", description="Run a program.")]


class HarnessStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Annotated[int, Field(ge=0, description="Generation of the spec last acted on.")] = 0
    requested_at: Annotated[str | None, Field(max_length=64, description="Last triplane.dev/requestedAt seen.")] = None
    conditions: Conditions


class Harness(Resource):
    """How an Agent is run: the program, its arguments and its environment."""

    info: ClassVar[KindInfo] = KindInfo(
        plural="harnesses",
        short_names=("th",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Program", ".spec.exec.program"),
            Column("Digest", ".spec.exec.digest", priority=1),
        ),
        ready_condition="Ready",
        spec_rules=(
            Rule("has(self.exec.program) || has(self.exec.digest)", "name a program, a digest, or both"),
            Rule(
                "!has(self.exec.env) || self.exec.env.all(e, !e.name.startsWith('TRIPLANE_') && "
                "!e.name.startsWith('LD_') && !e.name.startsWith('PYTHON') && "
                "e.name != 'PATH' && e.name != 'HOME')",
                "TRIPLANE_*, LD_*, PYTHON*, PATH and HOME are set by the session host",
            ),
            Rule(
                "(has(self.exec.args) ? self.exec.args.map(a, size(bytes(a))).sum() : 0) + "
                "(has(self.exec.env) ? self.exec.env.map(e, size(bytes(e.value))).sum() : 0) <= 131072",
                "args and env values together exceed 128 KiB of UTF-8",
            ),
        ),
    )
    spec: HarnessSpec
    status: HarnessStatus | None = None
