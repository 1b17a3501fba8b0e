"""``triplane capability``: publish what stands in a Capability as a version, archive one, show them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster
from triplane.cli.output import Format, FormatOption, columns, emit, note, one_line, short
from triplane.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader

MANAGER = "triplane-capability"
"""Field manager of published versions: an apply of the draft by somebody else does not touch them."""

app = typer.Typer(help="Publish, archive and show versions of Capabilities.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the Capability.")]
Object = dict[str, Any]


@app.command()
def publish(
    name: Name,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Make the draft a version: new Tasks get it, and it never changes. Says so when the newest says the same."""
    from triplane.api.capability import MAX_VERSIONS
    from triplane.domain.lens import declared, lens_problems, newest_version, next_version

    with cluster(kubeconfig, context) as reader:
        obj = reader.get("Capability", namespace or reader.access.namespace, name)
        spec = _spec(obj)
        version = next_version(spec)
        if version is None:
            newest = newest_version(spec)
            assert newest is not None
            typer.echo(f"capability {name}: version {newest.version} is just this; nothing to publish")
            return
        if problems := lens_problems(version):
            raise InvalidInput("; ".join(message for _, message in problems))
        standing = obj["spec"].get("versions") or []
        if len(standing) >= MAX_VERSIONS:
            raise InvalidInput(f"capability {name} has {MAX_VERSIONS} versions, the most there can be: make a new one")
        _apply(reader, obj, [*standing, {**declared(version), "version": version.version}])
    typer.echo(f"capability {name}: published version {version.version}")


@app.command()
def archive(
    name: Name,
    version: Annotated[int, typer.Argument(help="Number of the version.", min=1)],
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Nobody gets the version any more but Tasks that name it (`name@version`). It cannot be taken back."""
    with cluster(kubeconfig, context) as reader:
        obj = reader.get("Capability", namespace or reader.access.namespace, name)
        standing = obj["spec"].get("versions") or []
        if all(item["version"] != version for item in standing):
            numbers = ", ".join(str(item["version"]) for item in standing) or "none"
            raise NotFound(f"capability {name} has no version {version}; published: {numbers}")
        _apply(
            reader,
            obj,
            [{**item, "archived": item["version"] == version or item.get("archived", False)} for item in standing],
        )
    typer.echo(f"capability {name}: archived version {version}")


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="One version; default: all, and the draft.")] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show the versions, or with --version what one of them says."""
    from triplane.domain.lens import ChosenLens, choose, declared, draft, lens_digest, newest_version

    with cluster(kubeconfig, context) as reader:
        obj = reader.get("Capability", namespace or reader.access.namespace, name)
    capability = _capability(obj)
    if version is not None:
        chosen = choose(capability, version)
        if not isinstance(chosen, ChosenLens):
            raise NotFound(chosen[1])
        said = {"name": name, "version": version, "digest": chosen.digest, **declared(chosen.lens)}
        emit(said, output, lambda: _say(said))
        return
    newest = newest_version(capability.spec)
    lenses = [(str(item.version), item, item.archived) for item in capability.spec.versions or ()]
    lenses.append(("draft", draft(capability.spec), False))
    rows = [
        {
            "version": number,
            "state": _state(number, newest.version if newest else None, archived=archived, any_=len(lenses) > 1),
            "digest": lens_digest(item),
            "parameters": [label.name for label in item.parameters or ()],
            "inputs": [entry.name for entry in item.inputs or ()],
            "outputs": [entry.name for entry in item.outputs],
        }
        for number, item, archived in lenses
    ]
    emit({"name": name, "versions": rows}, output, lambda: _list(rows))


def _state(number: str, newest: int | None, *, archived: bool, any_: bool) -> str:
    if number == "draft":
        return "not published" if any_ else "draft (Tasks get it: nothing is published)"
    if archived:
        return "archived"
    return "newest (Tasks get it)" if newest is not None and number == str(newest) else "published"


def _list(rows: list[dict[str, Any]]) -> None:
    columns(
        ("VERSION", "STATE", "DIGEST", "PARAMETERS", "INPUTS", "OUTPUTS"),
        [(row["version"], row["state"], short(row["digest"]), *(",".join(row[key]) for key in _LISTS)) for row in rows],
    )


_LISTS = ("parameters", "inputs", "outputs")


def _say(said: Mapping[str, Any]) -> None:
    note(f"{said['name']}@{said['version']}  {said['digest']}")
    for label in said.get("parameters") or ():
        default = "no default" if label.get("default") is None else f"default {label['default']!r}"
        typer.echo(one_line(f"[[{label['name']}]] {label['type']}, {default}"))
    for key in ("inputs", "outputs"):
        for item in said.get(key) or ():
            typer.echo(one_line(f"{key[:-1]} {item['name']} {item.get('mediaType') or ''}".rstrip()))
    for line in (said.get("instructions") or "").splitlines():
        typer.echo(one_line(line) if line else "")


def _apply(reader: "Reader", obj: Object, versions: list[Object]) -> None:
    """The versions as they are to be; refused by the API server if another hand was faster (resourceVersion)."""
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    manifest = {"apiVersion": obj["apiVersion"], "kind": "Capability", "metadata": metadata}
    reader.apply({**manifest, "spec": {"versions": versions}}, manager=MANAGER)


def _capability(obj: Object) -> Any:
    from triplane.api.capability import Capability

    return Capability.model_validate(obj)


def _spec(obj: Object) -> Any:
    return _capability(obj).spec
