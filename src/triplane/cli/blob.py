"""``triplane blob``: put inputs into the content store, get anything out by digest."""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, gateway
from triplane.cli.output import Format, FormatOption, emit, note
from triplane.errors import InvalidDigest, InvalidInput

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

app = typer.Typer(help="Put blobs into the content store and get them out.", no_args_is_help=True)

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
    """Write the blob to the file (whole or not at all) or to standard output."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidDigest(f"{digest!r} is not a digest: write sha256: and 64 lowercase hex digits")
    if file is None:
        for chunk in opened.fetch(digest):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("wb") as target:
            for chunk in opened.fetch(digest):
                target.write(chunk)
        partial.replace(file)
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    note(f"{file} written")


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
