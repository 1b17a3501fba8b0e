"""``triplane artifact``: list accepted work and fetch its content."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.blob import save
from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster, gateway
from triplane.cli.output import Format, FormatOption, columns, emit, note, short
from triplane.errors import NotFound

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader

app = typer.Typer(help="List artifacts and fetch their content.", no_args_is_help=True)


@app.command("get")
def get(
    thing: Annotated[str, typer.Argument(metavar="NAME|DIGEST", help="Artifact, its output with --task, or digest.")],
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write here; default: standard output.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="The Task whose output NAME is.")] = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Fetch the content, checked against its digest. Says on standard error if no review accepted it."""
    digest = thing
    if not thing.startswith("sha256:"):
        with cluster(kubeconfig, context) as reader:
            found = _find(reader, namespace or reader.access.namespace, thing, task)
        digest = found["spec"]["digest"]
        if _reviewed(found) != "True":
            note(f"warning: artifact {found['metadata']['name']} is not accepted (Reviewed={_reviewed(found)})")
    with gateway(kubeconfig, context, namespace) as opened:
        save(opened, digest, file)


@app.command("list")
def list_all(
    task: Annotated[str | None, typer.Option("--task", help="Only outputs of this Task.")] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List artifacts, oldest first."""
    with cluster(kubeconfig, context) as reader:
        found = reader.list("Artifact", namespace or reader.access.namespace)
    kept = [item for item in found if task in (None, item["spec"]["taskRef"]["name"])]
    kept.sort(key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))
    rows = [
        {
            "name": item["metadata"]["name"],
            "output": item["spec"]["name"],
            "task": item["spec"]["taskRef"]["name"],
            "round": item["spec"]["round"],
            "reviewed": _reviewed(item),
            "size": item["spec"]["size"],
            "digest": item["spec"]["digest"],
        }
        for item in kept
    ]
    header = ["NAME", "OUTPUT", "TASK", "ROUND", "REVIEWED", "SIZE", "DIGEST"]
    emit(rows, output, lambda: columns(header, [[*list(row.values())[:-1], short(row["digest"])] for row in rows]))


def _find(reader: "Reader", namespace: str, name: str, task: str | None) -> dict[str, Any]:
    if task is None:
        return reader.get("Artifact", namespace, name)
    found = [
        item
        for item in reader.list("Artifact", namespace)
        if (item["spec"]["taskRef"]["name"], item["spec"]["name"]) == (task, name)
    ]
    if not found:
        raise NotFound(f"task {task} in namespace {namespace} has no output {name!r} yet")
    # The accepted one, else the newest round.
    return max(found, key=lambda item: (_reviewed(item) == "True", item["spec"]["round"], item["spec"]["run"]))


def _reviewed(item: dict[str, Any]) -> str:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((str(c["status"]) for c in conditions if c["type"] == "Reviewed"), "Unknown")
