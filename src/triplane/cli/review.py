"""``triplane review``: what waits for people, and their answers. The Review is made as the kubeconfig's user."""

import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster
from triplane.cli.output import Format, FormatOption, emit, one_line
from triplane.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader
    from triplane.domain.asking import Asking

app = typer.Typer(help="See what waits for people; approve or reject it.", no_args_is_help=True)
LOOK_SECONDS = 0.5


class Gate(StrEnum):
    """What an answer is about."""

    OUTPUTS = "outputs"
    LAUNCH = "launch"
    TOOL = "tool"


TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Name of the Task.")]
GateOption = Annotated[Gate | None, typer.Option("--gate", help="Only this gate; default: what waits.")]
RoundOption = Annotated[int | None, typer.Option("--round", min=1, help="Only this round; default: the open one.")]
DigestOption = Annotated[
    list[str] | None,
    typer.Option("--digest", help="What you looked at: refused unless it is what is judged. `show` tells. Repeatable."),
]
FindingOption = Annotated[list[str] | None, typer.Option("--message", "-m", help="A finding. Repeatable.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether this is meant.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for what comes of it.")]


@app.command("show")
def show(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Name of the Task; default: all.")] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what waits for whom: gate, round, and what exactly must be judged."""
    from triplane.domain.asking import askings

    with cluster(kubeconfig, context) as reader:
        chosen = namespace or reader.access.namespace
        tasks = [reader.get("Task", chosen, task)] if task else reader.list("Task", chosen)
    found = [(item["metadata"]["name"], asking) for item in tasks for asking in askings(item)]
    rows = [{"task": name, **asking.document()} for name, asking in found]
    emit(rows, output, lambda: _table(found))


def _table(found: list[tuple[str, "Asking"]]) -> None:
    if not found:
        typer.echo("nothing waits for people")
    for name, asking in found:
        typer.echo("\n".join(_lines(name, asking)))
        digests = " ".join(f"--digest {digest}" for _, digest in asking.subjects)
        typer.echo(f"  answer:  triplane review approve {name} --round {asking.round} {digests}")


def _lines(name: str, asking: "Asking") -> list[str]:
    lines = [f"{name}: gate {asking.gate.value}, round {asking.round}", f"  waits for  {', '.join(asking.people)}"]
    if asking.approved:
        lines.append(f"  approved   {', '.join(asking.approved)}")
    if asking.until:
        lines.append(f"  until      {asking.until}")
    lines += [f"  judged     {subject} {digest}" for subject, digest in asking.subjects]
    if asking.gate.value != "Launch":  # a digest alone tells nobody what they give leave to
        lines += [f"  look at it: triplane blob get {digest}" for _, digest in asking.subjects]
    return [*lines, f"  {one_line(asking.message)}"] if asking.message else lines


@app.command("approve")
def approve(
    task: TaskArgument,
    message: FindingOption = None,
    gate: GateOption = None,
    round_: RoundOption = None,
    digest: DigestOption = None,
    yes: YesOption = False,
    wait: WaitOption = 5.0,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Approve exactly what is shown. Void if it has changed by the time it is weighed, never misapplied."""
    with cluster(kubeconfig, context) as reader:
        _answer(reader, _Answer(task, "Approve", message or [], gate, round_, digest or [], yes, wait), namespace)


@app.command("reject")
def reject(
    task: TaskArgument,
    message: FindingOption = None,
    gate: GateOption = None,
    round_: RoundOption = None,
    digest: DigestOption = None,
    yes: YesOption = False,
    wait: WaitOption = 5.0,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Reject it, with at least one finding."""
    if not message:
        raise InvalidInput("a rejection needs a finding: say with -m what is wrong, the producer's next run gets it")
    with cluster(kubeconfig, context) as reader:
        _answer(reader, _Answer(task, "Reject", message, gate, round_, digest or [], yes, wait), namespace)


@dataclass(frozen=True)
class _Answer:
    task: str
    verdict: str
    findings: list[str]
    gate: Gate | None
    round: int | None
    digests: list[str]
    yes: bool
    wait: float


def _answer(reader: "Reader", answer: _Answer, namespace: str | None) -> None:
    from triplane.api.meta import Gate as Gates
    from triplane.domain.asking import choose, manifest

    task = reader.get("Task", namespace or reader.access.namespace, answer.task)
    gate = Gates(answer.gate.value.capitalize()) if answer.gate is not None else None
    asking = choose(task, gate, answer.round)
    _as_seen(asking, answer)
    typer.echo("\n".join(_lines(answer.task, asking)))
    if not answer.yes and not answer.digests and sys.stdin.isatty():
        typer.confirm(f"{answer.verdict} exactly these?", abort=True)
    made = reader.create(manifest(task, asking, answer.verdict, answer.findings), manager="triplane-cli")
    name = made["metadata"]["name"]
    typer.echo(f"review {name} made: {answer.verdict}")
    if (void := _void(reader, task, name, answer.wait)) is not None:
        raise NotFound(f"it decides nothing: {void}")


def _as_seen(asking: "Asking", answer: _Answer) -> None:
    """Nobody approves what they have not looked at: the digests of ``show`` hold, or nothing is made."""
    known = {digest for _, digest in asking.subjects}
    if strange := [digest for digest in answer.digests if digest not in known]:
        raise NotFound(
            f"{strange[0]} is not what is judged now ({', '.join(sorted(known))}): look again with "
            f"`triplane review show {answer.task}`"
        )
    if answer.digests and (unseen := sorted(known - set(answer.digests))):
        raise InvalidInput(f"{unseen[0]} is judged too: name it with --digest, or leave --digest out")


def _void(reader: "Reader", task: dict[str, Any], review: str, seconds: float) -> str | None:
    """What the operator says against it; None when it was counted, or nothing was said in time."""
    from triplane.domain.asking import remark

    metadata, ends = task["metadata"], time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(min(LOOK_SECONDS, seconds))
        now = reader.get("Task", metadata["namespace"], metadata["name"])
        if now["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            if (said := remark(now, review)) is not None:
                return said
            if (now.get("status") or {}) != (task.get("status") or {}):
                return None
    return None
