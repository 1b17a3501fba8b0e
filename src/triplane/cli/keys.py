"""``triplane keys``: the keys the operator signs with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, gateway, settings
from triplane.cli.output import Format, FormatOption, columns, emit, note

app = typer.Typer(help="List, rotate and export the operator's signing keys.", no_args_is_help=True)


@app.command("list")
def list_all(
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List the public keys, oldest first, with the part of the log each may sign in."""
    with gateway(kubeconfig, context) as opened:
        keys = opened.get("/v1/keys")["keys"]
    header = ["KEY", "STATE", "FROM ENTRY", "SINCE", "TO ENTRY", "RETIRED"]
    emit(keys, output, lambda: columns(header, [_cells(key) for key in keys]))


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write here; default: standard output.")] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Write the public keys as a trust bundle, for `triplane attest verify --keys`."""
    import json

    from triplane.audit.keys import read_bundle

    with gateway(kubeconfig, context) as opened:
        document = read_bundle(opened.get("/v1/keys")).wire()
    text = json.dumps(document, indent=2) + "\n"
    if file is None:
        typer.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    note(f"{file}: {len(document['keys'])} keys of {document['origin']}; keep it where others cannot change it")


@app.command("rotate")
def rotate() -> None:
    """Let a new key sign. Works where the operator's secrets are; what older keys signed stays good.

    The operator takes it up within seconds, tells of it in the log, and destroys the old private key when
    nothing it signed is still on its way."""
    from triplane.adapters.filesystem.signingkeys import SigningKeyFolder

    current = settings()
    made = SigningKeyFolder(current.secrets).rotate()
    note(f"a new key signs from now on; its private half is in {current.secrets / 'signing'} and nowhere else")
    typer.echo(made.key_id)


def _cells(key: dict[str, Any]) -> list[object]:
    retired = key.get("retired") or {}
    return [
        key["keyId"][:16],
        "retired" if retired else "signs",
        key["created"]["seq"],
        key["created"]["time"],
        retired.get("seq"),
        retired.get("time"),
    ]
