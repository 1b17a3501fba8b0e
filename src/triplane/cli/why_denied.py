"""``triplane why-denied``: what the API server would say to a manifest, and who can change that."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster
from triplane.cli.output import Format, FormatOption, emit, one_line
from triplane.cli.why import parse
from triplane.errors import Forbidden, InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader
    from triplane.domain.why_denied import Cause

_FOREIGN = ("status", "managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
"""What the server sets, not the author."""
_CONFLICT = 409
_UNKNOWN_CALLER = 401


def why_denied(
    thing: Annotated[
        str | None, typer.Argument(metavar="KIND/NAME", help="An object that is stored: would it still be?")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--filename", "-f", help="Manifests (YAML); `-` reads standard input.")
    ] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Ask the API server, without storing anything, and explain each thing that stands in the way: which layer and
    rule, which axis, value and limit, and who can change it. Exit code 1 when something is denied."""
    if (thing is None) == (file is None):
        raise InvalidInput("name either KIND/NAME or a file: `triplane why-denied -f task.yaml`")
    with cluster(kubeconfig, context) as reader:
        place = namespace or reader.access.namespace
        if file is not None:
            found = [(each, _of_manifest(reader, each)) for each in _manifests(file, place)]
        else:
            stored = reader.get(parse(str(thing))[0], place, parse(str(thing))[1])
            found = [(stored, _of_stored(reader, stored))]
    _show(found, output)
    if any(causes for _, causes in found):
        raise typer.Exit(1)


def _show(found: list[tuple[dict[str, Any], tuple["Cause", ...]]], output: Format) -> None:
    from triplane.domain.why import title
    from triplane.domain.why_denied import sentences

    def table() -> None:
        for obj, causes in found:
            for line in sentences(title(obj), causes):
                indent = len(line) - len(line.lstrip())
                typer.echo(" " * indent + one_line(line.strip()))

    value = [
        {"object": title(obj), "denied": bool(causes), "causes": [each.wire() for each in causes]}
        for obj, causes in found
    ]
    emit(value, output, table)


def _manifests(file: Path, namespace: str) -> Iterator[dict[str, Any]]:
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read as YAML: {error}") from error
    for document in documents:
        items = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else [document]
        for item in items or ():
            yield _manifest(item, file, namespace)
    if not documents:
        raise InvalidInput(f"{file} holds no manifest")


def _manifest(item: Any, file: Path, namespace: str) -> dict[str, Any]:
    from triplane.api.kinds import KINDS
    from triplane.api.text import API_VERSION

    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise InvalidInput(f"{file}: each manifest needs apiVersion, kind and metadata.name")
    if item.get("apiVersion") != API_VERSION or item.get("kind") not in KINDS:
        raise InvalidInput(f"{file}: {item.get('apiVersion')} {item.get('kind')} is not one of Triplane's kinds")
    return {**item, "metadata": {"namespace": namespace, **metadata}}


def _of_manifest(reader: "Reader", manifest: dict[str, Any]) -> tuple["Cause", ...]:
    """What applying it would meet: a create, or an update of what is there."""
    metadata = manifest["metadata"]
    try:
        stored = reader.get(manifest["kind"], metadata["namespace"], metadata["name"])
    except NotFound:
        return _asked(reader, manifest, update=False)
    merged = {**stored["metadata"], **metadata}
    for field in ("labels", "annotations"):
        merged[field] = {**(stored["metadata"].get(field) or {}), **(metadata.get(field) or {})}
    return _asked(reader, {**manifest, "metadata": merged}, update=True)


def _of_stored(reader: "Reader", stored: dict[str, Any]) -> tuple["Cause", ...]:
    """What creating it anew would meet, and why it is not launched."""
    from triplane.domain.why_denied import stopped

    launch = stopped(stored)
    if _by_the_operator(stored):
        if launch:
            return launch
        raise InvalidInput(
            f"{stored['kind']} {stored['metadata']['name']} was made by the operator: nobody else may make it. Ask "
            "about the Node or Task it comes from, or `triplane why` about this one"
        )
    metadata = {key: value for key, value in stored["metadata"].items() if key not in (*_FOREIGN, "ownerReferences")}
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not key.startswith("triplane.dev/")
    }
    bare = {key: value for key, value in stored.items() if key not in _FOREIGN}
    return (*_asked(reader, {**bare, "metadata": metadata}, update=False), *launch)


def _by_the_operator(stored: Mapping[str, Any]) -> bool:
    spec = stored["spec"]
    own = stored["kind"] in ("AgentSession", "Artifact")
    return own or bool(spec.get("nodeRef") or (stored["kind"] == "Review" and spec.get("sessionRef")))


def _asked(reader: "Reader", manifest: dict[str, Any], *, update: bool) -> tuple["Cause", ...]:
    from triplane.domain.why_denied import causes_of

    code, body = reader.dry_run(manifest, update=update)
    if code == _UNKNOWN_CALLER:
        raise Forbidden(f"the API server does not know this caller (context {reader.access.context}): renew its token")
    # A create that gets as far as finding the name taken has been admitted.
    if code < 400 or (code == _CONFLICT and body.get("reason") == "AlreadyExists"):
        return ()
    return causes_of({"code": code, **body})
