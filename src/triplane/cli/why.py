"""``triplane why``: what an object waits for and who must act, in words."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, cluster
from triplane.cli.output import Format, FormatOption, emit, one_line
from triplane.errors import InvalidInput

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader


def why(
    thing: Annotated[str, typer.Argument(metavar="KIND/NAME", help="Such as task/audit or graph/demo.")],
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Say in words how it stands, why, and who must act next."""
    from triplane.domain.why import explain, title

    kind, name = parse(thing)
    with cluster(kubeconfig, context) as reader:
        found = reader.get(kind, namespace or reader.access.namespace, name)
        sentences = explain(found, related(reader, found))
    emit(
        {"object": title(found), "sentences": sentences},
        output,
        lambda: typer.echo("\n".join(one_line(sentence) for sentence in sentences)),
    )


def parse(thing: str) -> tuple[str, str]:
    """``KIND/NAME`` with any name kubectl knows the kind by."""
    from triplane.api.kinds import KINDS

    given, _, name = thing.partition("/")
    for kind, model in KINDS.items():
        names = {kind.lower(), model.info.plural, *model.info.short_names}
        names |= {"session"} if kind == "AgentSession" else set()
        if given.lower().removesuffix(".triplane.dev") in names and name:
            return kind, name
    known = ", ".join(kind.lower() for kind in KINDS)
    raise InvalidInput(f"{thing!r} is not KIND/NAME; kinds: {known}")


def kind_of(word: str) -> str:
    """The kind by any name kubectl knows it by; raises ``InvalidInput`` naming them all."""
    try:
        return parse(f"{word}/-")[0]
    except InvalidInput as error:
        from triplane.api.kinds import KINDS

        raise InvalidInput(f"no kind {word!r}; there are {', '.join(kind.lower() for kind in KINDS)}") from error


def related(reader: "Reader", obj: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that belong to it: what it waits for is often said there. Of one that is being deleted, every
    session below it as well."""
    found = _belonging(reader, obj)
    if obj["metadata"].get("deletionTimestamp") and obj["kind"] in ("Graph", "Node"):
        namespace = obj["metadata"].get("namespace", "")
        tasks = [item for node in found if node["kind"] == "Node" for item in _belonging(reader, node)]
        uids = {item["metadata"]["uid"] for item in (*found, *tasks)}
        found += [item for item in reader.list("AgentSession", namespace) if item["spec"]["taskRef"]["uid"] in uids]
    return found


def _belonging(reader: "Reader", obj: dict[str, Any]) -> list[dict[str, Any]]:
    kind, metadata = obj["kind"], obj["metadata"]
    namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
    if kind == "Graph":
        listed = [*reader.list("Node", namespace), *reader.list("Task", namespace)]
        return [item for item in listed if item["spec"]["graphRef"]["name"] == name and not item["spec"].get("nodeRef")]
    if kind == "Node":
        tasks = reader.list("Task", namespace)
        return [task for task in tasks if (task["spec"].get("nodeRef") or {}).get("name") == name]
    if kind == "Task":
        sessions = reader.list("AgentSession", namespace)
        return [session for session in sessions if session["spec"]["taskRef"]["uid"] == uid]
    return []
