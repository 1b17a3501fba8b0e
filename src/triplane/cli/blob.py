"""``triplane blob``: put inputs into the content store, get anything out by digest."""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, gateway
from triplane.cli.output import Format, FormatOption, columns, emit, note
from triplane.cli.trust import written
from triplane.errors import InvalidDigest, InvalidInput

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

app = typer.Typer(help="Put blobs into the content store, get them out, and keep it in order.", no_args_is_help=True)

_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@app.command("put")
def put(
    path: Annotated[Path, typer.Argument(help="A file, or a folder: stored as a deterministic tar.")],
    output: FormatOption = Format.TABLE,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Store a file or a folder in the namespace; prints its digest, for `spec.inputs[].digest` there."""
    with gateway(kubeconfig, context, namespace) as opened:
        digest, size = store(opened, path)
    kind = "Directory" if path.is_dir() else "File"
    found = {"digest": digest, "size": size, "type": kind}
    note(f"{path}: {size} octets stored; use it in namespace {opened.namespace} as an input with type: {kind}")
    emit(found, output, lambda: typer.echo(digest))


@app.command("get")
def get(
    digest: Annotated[str, typer.Argument(help="sha256: and 64 hex digits.")],
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write here; default: standard output.")] = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Fetch a blob of the namespace, checked against its digest."""
    with gateway(kubeconfig, context, namespace) as opened:
        save(opened, digest, file)


@app.command("erase")
def erase(
    digest: Annotated[str, typer.Argument(help="sha256: and 64 hex digits.")],
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Erase a blob for good, wherever it is used; the log keeps that it was there, and says that it was erased."""
    _check_digest(digest)
    if not sure:
        typer.confirm(f"Erase {digest} in all namespaces? It cannot be brought back", abort=True)
    with gateway(kubeconfig, context) as opened:
        opened.erase(digest)
    note(f"{digest} erased")


@app.command("list")
def list_blobs(
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List every blob with its size and when it was last stored (admins)."""
    with gateway(kubeconfig, context) as opened:
        *found, last = opened.work("GET", "/v1/content/blobs")
    emit(
        found,
        output,
        lambda: columns(
            ("DIGEST", "OCTETS", "STORED"), [[each["digest"], str(each["size"]), each["storedAt"]] for each in found]
        ),
    )
    note(f"{last['result']['blobs']} blobs of {last['result']['octets']} octets")


@app.command("check")
def check(
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Look up every blob the log names: which are erased, quarantined or lost (admins). Exit 1 if any is lost or
    quarantined."""
    with gateway(kubeconfig, context) as opened:
        *absent, last = opened.work("GET", "/v1/content/check")
    result = last["result"]
    emit({"absent": absent, **result}, output, lambda: _show_absent(absent))
    note(f"{result['there']} of {result['blobs']} blobs that {result['entries']} log entries name are there")
    if any(each["absence"] in ("lost", "quarantined") for each in absent):
        raise typer.Exit(1)


@app.command("collect")
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Remove blobs that nothing names and that are older than the grace (admins). The gateway does it by itself."""
    with gateway(kubeconfig, context) as opened:
        *_, last = opened.work("POST", "/v1/content/collect", dryRun="true" if dry_run else None)
    found = last["result"]
    emit(found, output, lambda: typer.echo("\n".join(_collection(found, dry_run))))
    if found["refused"]:
        raise typer.Exit(1)


@app.command("scrub")
def scrub(
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Read every blob again, at the rate of the settings (admins). Exit 1 names all that are bad."""
    with gateway(kubeconfig, context) as opened:
        *_, last = opened.work("POST", "/v1/content/scrub")
    found = last["result"]
    emit(found, output, lambda: typer.echo("\n".join(_scrub(found))))
    if found["bad"] or found["unreadable"]:
        raise typer.Exit(1)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    digests: Annotated[list[str] | None, typer.Option("--digest", help="Only this one; may be repeated.")] = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Write blobs as an OCI image layout, each checked against its digest: all of them (admins), or those named."""
    from triplane.cli.ocilayout import LayoutWriter

    for digest in digests or ():
        _check_digest(digest)
    writer = LayoutWriter(folder)
    octets = count = 0
    with gateway(kubeconfig, context, namespace) as opened:
        wanted = list(dict.fromkeys(digests or ())) or [
            each["digest"] for each in opened.work("GET", "/v1/content/blobs") if "digest" in each
        ]
        for digest in wanted:
            octets, count = octets + writer.add(digest, opened.fetch(digest)), count + 1
    manifests = writer.finish()
    note(f"{count} blobs of {octets} octets in {manifests} manifest{'s' if manifests > 1 else ''} written to {folder}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="An OCI image layout.")],
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Store the blobs of an OCI image layout in the namespace, each checked against its digest."""
    from triplane.cli.ocilayout import blobs_of_layout, read_blob

    found = blobs_of_layout(folder)
    with gateway(kubeconfig, context, namespace) as opened:
        for blob in found:
            opened.store(read_blob(folder, blob), blob.digest)
    note(f"{len(found)} blobs of {sum(blob.size for blob in found)} octets stored in namespace {opened.namespace}")


def _show_absent(absent: list[dict[str, Any]]) -> None:
    columns(("ABSENCE", "SEQ", "DIGEST"), [[each["absence"], _seq(each), each["digest"]] for each in absent])
    for each in absent:
        if each["absence"] != "erased":
            note(each["message"])


def _seq(absent: dict[str, Any]) -> str:
    return "archived" if absent["seq"] is None else str(absent["seq"])


def _collection(found: dict[str, Any], dry_run: bool) -> Iterator[str]:
    if found["refused"]:
        yield f"nothing was collected: {found['refused']}"
        return
    kept = ", ".join(f"{number} {why}" for why, number in found["kept"].items())
    yield f"{found['seen']} blobs: {kept}; {found['condemned']} are named by nothing"
    if dry_run:
        yield f"{found['octets']} octets would go; nothing was removed"
        yield from found["examples"]
    else:
        yield f"{found['removed']} removed, {found['octets']} octets; {found['tidied']} leavings of dead writers"


def _scrub(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['checked']} blobs of {found['octets']} octets read"
    yield from (f"altered, moved to quarantine: {digest}" for digest in found["bad"])
    yield from (f"could not be read: {digest}" for digest in found["unreadable"])


def store(opened: "Gateway", path: Path) -> tuple[str, int]:
    """Store a file or folder; returns digest and octets."""
    if path.is_dir():
        import tempfile

        from triplane.session.tree import pack_tree

        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder) / "tree.tar"
            with packed.open("wb") as target:
                target.writelines(pack_tree(path))
            return _store_file(opened, packed)
    if not path.is_file():
        raise InvalidInput(f"{path} is neither a file nor a folder")
    return _store_file(opened, path)


def save(opened: "Gateway", digest: str, file: Path | None) -> None:
    """Write the blob to the file (see ``written``) or to standard output."""
    _check_digest(digest)
    if file is None:
        for chunk in opened.fetch(digest):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    with written(file) as target:
        for chunk in opened.fetch(digest):
            target.write(chunk)
    note(f"{file} written")


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise InvalidDigest(f"{digest!r} is not a digest: write sha256: and 64 lowercase hex digits")


def _store_file(opened: "Gateway", path: Path) -> tuple[str, int]:
    hashed = hashlib.sha256()
    size = 0
    for chunk in _chunks(path):
        hashed.update(chunk)
        size += len(chunk)
    digest = f"sha256:{hashed.hexdigest()}"
    opened.store(_chunks(path), digest)
    return digest, size


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
