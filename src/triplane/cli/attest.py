"""``triplane attest``: what was signed about work, and whether it holds; also without an installation."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, access, gateway
from triplane.cli.output import Format, FormatOption, colour, columns, emit, note, one_line, short
from triplane.errors import Archived, InvalidInput, NotFound

if TYPE_CHECKING:
    from triplane.audit.evidence import Step
    from triplane.audit.keys import TrustBundle
    from triplane.cli.archived import ArchiveFolder
    from triplane.cli.bundle import Shown
    from triplane.cli.gateway import Gateway

app = typer.Typer(help="Show, export and verify signed statements about work.", no_args_is_help=True)

Object = Mapping[str, Any]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Trust these keys alone (`triplane keys export`).", show_default=False)
]
_STATED = "attestation.recorded"


@app.command("show")
def show(
    thing: Annotated[
        str,
        typer.Argument(metavar="OBJECT", help="Name or UID of an Artifact, task/NAME, or a sha256:… digest."),
    ],
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List the statements about an artifact or a Task; with -o json or yaml, with what they say.

    A digest is that of a signed envelope, or of an artifact's content."""
    with gateway(kubeconfig, context, namespace) as opened:
        place = namespace or access(kubeconfig, context).namespace
        entries = _stated_about(opened, thing, place)
        if not entries:
            raise NotFound(f"no statement about {thing} is recorded in namespace {place}")
        documents = [_document(opened, item, decode=output is not Format.TABLE) for item in entries]
    header = ["ENTRY", "STATEMENT", "ABOUT", "KEY", "ENVELOPE"]
    rows = [
        [item["seq"], item["predicateType"], item["about"], item["keyId"][:16], short(item["envelopeDigest"])]
        for item in documents
    ]
    emit(documents, output, lambda: columns(header, rows))


@app.command("export")
def export(
    artifact: Annotated[str, typer.Argument(help="Name, UID or content digest of an accepted Artifact.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="A new or empty folder.")],
    content: Annotated[bool, typer.Option("--content", help="With the content.")] = False,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Write everything `triplane attest verify` needs into a folder: statements, log entries, keys."""
    from triplane.cli.blob import save
    from triplane.cli.bundle import write_bundle

    with gateway(kubeconfig, context, namespace) as opened:
        place = namespace or access(kubeconfig, context).namespace
        shown = shown_artifact(opened, artifact, place, None)
        write_bundle(folder, shown)
        if content:
            save(opened, shown.evidence.digest, folder / "content")
    evidence = shown.evidence
    note(f"{folder}: {len(evidence.envelopes)} statements, {len(evidence.entries)} log entries")
    note(f"check it with: triplane attest verify {folder} --keys KEYS (from `triplane keys export`, kept elsewhere)")


@app.command("verify")
def verify(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|FOLDER|FILE", help="An accepted Artifact, an export of it, or a lineage bundle."
        ),
    ],
    keys: KeysOption = None,
    content: Annotated[
        Path | None, typer.Option("--content", help="Check that this file is the content.", show_default=False)
    ] = None,
    namespace: NamespaceOption = None,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Check step by step that an artifact was produced, reviewed by somebody else, and accepted.

    An exported folder is checked without any connection, and so is the bundle of `triplane lineage -o in-toto`, with
    all that the artifact was made from. Exit 1 names the step that failed; exit 2: its entries are archived."""
    from triplane.audit.verification import holds
    from triplane.audit.verification import verify as verify_evidence
    from triplane.cli.bundle import read_bundle_folder, read_keys, with_content

    trusted = None if keys is None else read_keys(keys)
    folder = Path(thing)
    if folder.is_file():
        from triplane.cli.intoto import verify_bundle_file

        verify_bundle_file(folder, trusted, content, output)
        return
    if folder.is_dir():
        shown = read_bundle_folder(folder, trusted)
        if shown.origin != shown.evidence.trust.origin:
            raise InvalidInput(f"{thing} is of the log {shown.origin}, the keys of {shown.evidence.trust.origin}")
        if trusted is None:
            note("warning: the keys came with the folder: this shows that it fits together, not who signed it")
            note("  name keys you got elsewhere with --keys")
    else:
        with gateway(kubeconfig, context, namespace) as opened:
            place = namespace or access(kubeconfig, context).namespace
            shown = shown_artifact(opened, thing, place, trusted)
        if trusted is None:
            note("keys and log entries are as the gateway tells them; --keys names keys you got elsewhere")
    evidence = shown.evidence if content is None else with_content(shown.evidence, content)
    steps = verify_evidence(evidence)
    good = holds(steps)
    document = {
        "ok": good,
        "artifact": dict(shown.artifact),
        "digest": evidence.digest,
        "origin": evidence.trust.origin,
        "steps": [{"number": s.number, "name": s.name, "ok": s.ok, "found": s.found} for s in steps],
    }
    emit(document, output, lambda: _print(steps, document))
    if not good:
        raise typer.Exit(1)


def _print(steps: Sequence["Step"], document: Object) -> None:
    marks = {True: colour("ok", "green"), False: colour("FAILED", "red"), None: "-"}
    for step in steps:
        typer.echo(f"{step.number:>3}. {step.name:<13} {marks[step.ok]:<7} {one_line(step.found)}")
    name = one_line(document["artifact"].get("name"))
    if document["ok"]:
        typer.echo(f"artifact {name} was produced, reviewed and accepted as these statements say")
        return
    failed = next((step for step in steps if step.ok is False), None)
    why = f"step {failed.number} ({failed.name})" if failed else "a step that had nothing to look at"
    typer.echo(f"artifact {name} is NOT verified: {why}")


def shown_artifact(
    opened: "Gateway", thing: str, namespace: str, keys: "TrustBundle | None", archive: "ArchiveFolder | None" = None
) -> "Shown":
    """Everything there is to show for one artifact, from the gateway and, of archived entries, from the archive."""
    from triplane.audit.evidence import Evidence
    from triplane.audit.keys import read_bundle
    from triplane.cli.bundle import Shown, entry_octets, named

    document = _one(opened, thing, namespace)
    entries = list(_story(opened, document, namespace, archive))
    envelopes = {
        item["entry"]["data"]["envelopeDigest"]: b"".join(opened.fetch(item["entry"]["data"]["envelopeDigest"]))
        for item in entries
        if item["entry"]["type"] == _STATED
    }
    artifact = {key: document["artifact"].get(key) for key in ("kind", "namespace", "name", "uid", "output")}
    evidence = Evidence(
        artifact_uid=document["artifact"]["uid"],
        digest=document["digest"],
        entries=dict(entry_octets(item) for item in entries),
        envelopes=envelopes,
        trust=keys or read_bundle(opened.get("/v1/keys")),
        named=named(artifact),
    )
    return Shown(artifact, evidence)


def _one(opened: "Gateway", thing: str, namespace: str) -> Object:
    from triplane.cli.lineage import find

    found = [item for item in find(opened, thing, namespace) if item["artifact"].get("namespace") == namespace]
    if not found:
        raise NotFound(f"no artifact {thing} is kept in namespace {namespace}")
    if len(found) > 1:
        names = ", ".join(sorted(item["artifact"]["name"] for item in found))
        raise InvalidInput(f"several artifacts have the content {thing}: {names}; name one of them")
    return found[0]


def _story(
    opened: "Gateway", document: Object, namespace: str, archive: "ArchiveFolder | None" = None
) -> Iterator[Object]:
    """The entries that tell of an artifact, its run, its Task's acceptance and the reviews that decided it. Raises
    ``Archived`` when the first of them may be in the archive."""
    artifact, session, task = document["artifact"], document.get("session") or {}, document.get("task") or {}

    def entries(uid: str, *types: str) -> list[Object]:
        found = {item["seq"]: item for item in (archive.about(uid, types) if archive is not None else ())}
        found |= {item["seq"]: item for item in _entries(opened, namespace, uid, *types)}
        return [found[seq] for seq in sorted(found)]

    if archive is not None:
        archive.require(lambda: opened.entries(namespace=namespace, limit=1))
    recorded = entries(artifact["uid"], "artifact.recorded")
    if not recorded and archive is None:
        _refuse_archived(opened, namespace, artifact["name"])
    yield from recorded
    if session.get("uid"):
        yield from entries(session["uid"], _STATED)
    if not task.get("uid"):
        return
    decided = entries(task["uid"], "task.accepted", _STATED)
    yield from decided
    reviews = {
        item["reviewUid"]: None
        for entry in decided
        if entry["entry"]["type"] == "task.accepted"
        for item in entry["entry"]["data"].get("reviews") or (entry["entry"]["data"],)
    }
    for uid in reviews:
        yield from entries(uid, "review.recorded", _STATED)


def _refuse_archived(opened: "Gateway", namespace: str, name: str) -> None:
    """What is not in the log any more refutes nothing. Raises ``Archived`` when the log does not begin with entry 0."""
    try:
        opened.entries(namespace=namespace, limit=1)
    except Archived as gone:
        raise Archived(
            f"nothing is found out about artifact {name}: it is recorded in no entry that is here, and {gone}. "
            "`triplane proof artifact --archive DIR` reads there, for `triplane verify`",
            upto=gone.upto,
        ) from gone


def _stated_about(opened: "Gateway", thing: str, namespace: str) -> list[Object]:
    kind, _, name = thing.partition("/")
    if name and kind.lower() in ("task", "tasks"):
        kept = opened.get("/v1/resources", kind="Task", namespace=namespace, name=name)["resources"]
        if not kept:
            raise NotFound(f"no Task {name} is kept in namespace {namespace}")
        return _about_task(opened, namespace, kept[0]["uid"])
    if thing.startswith("sha256:"):
        newest = opened.entries(type=_STATED, namespace=namespace, limit=10_000, newest="true")
        found: list[Object] = [item for item in newest if item["entry"]["data"]["envelopeDigest"] == thing]
        if found:
            return found
    document = _one(opened, thing, namespace)
    stated = [item for item in _story(opened, document, namespace) if item["entry"]["type"] == _STATED]
    return sorted(stated, key=lambda item: int(item["seq"]))


def _about_task(opened: "Gateway", namespace: str, uid: str) -> list[Object]:
    """Of its runs, its reviews and its acceptance, in the order they were recorded."""
    own = _entries(opened, namespace, uid, _STATED)
    sessions = opened.entries(type="session.offered", namespace=namespace, limit=10_000)
    below = [item["entry"]["subject"]["uid"] for item in sessions if item["entry"]["data"]["taskUid"] == uid]
    found = [*own, *(entry for session in below for entry in _entries(opened, namespace, session, _STATED))]
    decided = _entries(opened, namespace, uid, "task.accepted", "task.rejected", "approval.given")
    for review in {item["entry"]["data"].get("reviewUid") for item in decided} - {None}:
        found += _entries(opened, namespace, review, _STATED)
    return sorted(found, key=lambda item: int(item["seq"]))


def _entries(opened: "Gateway", namespace: str, uid: str, *types: str) -> list[Object]:
    return list(opened.entries(type=list(types), namespace=namespace, uid=uid))


def _document(opened: "Gateway", item: Object, *, decode: bool) -> dict[str, Any]:
    entry = item["entry"]
    subject, data = entry["subject"], entry["data"]
    document = {
        "seq": item["seq"],
        "time": entry["time"],
        "about": f"{subject['kind']} {subject['name']}",
        **{key: data[key] for key in ("predicateType", "keyId", "envelopeDigest", "subjects")},
    }
    if decode:
        import json

        from triplane.audit import dsse

        envelope = dsse.parse(b"".join(opened.fetch(data["envelopeDigest"])))
        document["statement"] = json.loads(envelope.payload)
    return document
