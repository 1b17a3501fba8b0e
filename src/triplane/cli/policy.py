"""``triplane policy``: try Policies on manifests before either is applied, in a pull request for instance. Offline."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.output import Format, FormatOption, colour, columns, emit, note, one_line

if TYPE_CHECKING:
    from triplane.cli.rehearsal import Manifests
    from triplane.domain.policy import PolicyRequest, PolicyViolation

app = typer.Typer(help="Check Policies, and try them on manifests; needs no cluster.", no_args_is_help=True)


class StageName(StrEnum):
    """When Policies are asked."""

    ADMISSION = "Admission"
    LAUNCH = "Launch"


_COLOURS = {"Deny": "red", "Warn": "yellow", "Audit": "blue"}
FilesOption = Annotated[
    list[Path],
    typer.Option(
        "--filename",
        "-f",
        help="File or folder of Policies and manifests, or - for standard input; may be repeated.",
    ),
]


@app.command("test")
def try_out(
    files: FilesOption,
    stage: Annotated[StageName | None, typer.Option("--stage", help="Only this stage; both when absent.")] = None,
    user: Annotated[str, typer.Option("--user", help="Who is supposed to apply them.")] = "someone",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of manifests that name none; Policies there bind it.")
    ] = "default",
    output: FormatOption = Format.TABLE,
) -> None:
    """Ask the Policies among the files about the other objects among them. Exit 1 when one denies, 2 when a Policy or
    a manifest cannot be used. Tasks of a Node's steps are made as the operator makes them."""
    import asyncio

    from triplane.cli import rehearsal

    manifests = rehearsal.read(files, namespace)
    if not _usable(manifests, output):
        raise typer.Exit(2)
    from triplane.api.policy import Stage

    stages = [Stage(stage.value)] if stage is not None else list(Stage)
    asked = list(rehearsal.requests(manifests, stages, user))
    found = asyncio.run(_decide(manifests, asked))
    document = [_document(request, violation) for request, violation in found]
    emit(document, output, lambda: _lines(document))
    counts = {word: sum(1 for each in document if each["enforcement"] == word) for word in _COLOURS}
    note(
        f"{len(manifests.of('Policy'))} Policies, {len(asked)} requests: "
        + ", ".join(f"{number} {word}" for word, number in counts.items())
    )
    if counts["Deny"]:
        raise typer.Exit(1)


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files or folders of Policies.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Compile the Policies among the files; exit 2 names each expression that cannot be used, and where."""
    from triplane.cli import rehearsal

    manifests = rehearsal.read(files, "default")
    if not _usable(manifests, output):
        raise typer.Exit(2)
    emit([], output, lambda: note(f"{len(manifests.of('Policy'))} Policies can be used"))


def _usable(manifests: "Manifests", output: Format) -> bool:
    """Whether every Policy compiles; says what is wrong."""
    import asyncio

    from triplane.errors import InvalidInput

    if not manifests.of("Policy"):
        raise InvalidInput("there is no Policy among these files; name the file that has one with -f")
    found = asyncio.run(_problems(manifests))
    if found:
        header = ("POLICY", "FIELD", "PROBLEM")
        emit(found, output, lambda: columns(header, [tuple(each.values()) for each in found]))
    return not found


async def _problems(manifests: "Manifests") -> list[dict[str, str]]:
    from triplane.adapters.cel.policies import CelPolicies
    from triplane.api.policy import PolicySpec

    engine = CelPolicies()
    try:
        return [
            {"policy": _title(policy), "field": problem.field, "problem": problem.message}
            for policy in manifests.of("Policy")
            for problem in await engine.problems(PolicySpec.model_validate(policy["spec"]))
        ]
    finally:
        await engine.close()


async def _decide(
    manifests: "Manifests", asked: Sequence["PolicyRequest"]
) -> list[tuple["PolicyRequest", "PolicyViolation"]]:
    from triplane.adapters.cel.policies import CelPolicies

    engine, policies = CelPolicies(), manifests.of("Policy")
    try:
        return [
            (request, violation)
            for request in asked
            for violation in (await engine.decide(policies, request)).violations
        ]
    finally:
        await engine.close()


def _title(obj: Mapping[str, Any]) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _document(request: "PolicyRequest", violation: "PolicyViolation") -> dict[str, Any]:
    return {
        "enforcement": violation.enforcement.value,
        "stage": request.stage.value,
        "object": f"{request.kind} {request.namespace}/{request.name}",
        "policy": f"{violation.policy_namespace}/{violation.policy}",
        "rule": violation.rule,
        "reason": violation.reason,
        "message": violation.message,
        "contact": violation.contact,
    }


def _lines(found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        word = colour(f"{each['enforcement']:5}", _COLOURS[each["enforcement"]])
        where = f"{each['object']} at {each['stage']}: Policy {each['policy']} {each['rule']}"
        ask = f" (ask {each['contact']})" if each["contact"] else ""
        typer.echo(f"{word} {one_line(where)}: {one_line(each['message'])}{one_line(ask) if ask else ''}")
