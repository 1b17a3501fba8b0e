"""``triplane log``: query the event log, follow it, and verify the chain from the stored octets."""

from typing import Annotated

import typer

from triplane.cli.checkpoint import checkpoint, keys_app
from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, gateway
from triplane.cli.log_options import ActorOption, KindOption, NameOption, TypeOption, UidOption, cells, show
from triplane.cli.log_tail import tail
from triplane.cli.log_verify import verify
from triplane.cli.output import Format, FormatOption, columns, emit

app = typer.Typer(help="Query, follow and verify the event log.", no_args_is_help=True)

AfterOption = Annotated[int, typer.Option("--after", help="Only entries after this sequence number.", min=-1)]

_HEADER = ("SEQ", "TIME", "TYPE", "SUBJECT", "ACTOR")


@app.command("query")
def query(
    type_: TypeOption = None,
    kind: KindOption = None,
    namespace: NamespaceOption = None,
    name: NameOption = None,
    uid: UidOption = None,
    actor: ActorOption = None,
    after: AfterOption = -1,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=10_000)] = 100,
    newest: Annotated[bool, typer.Option("--newest", help="The last ones, newest first.")] = False,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List entries. Without a namespace, of all namespaces you may read."""
    where = {"kind": kind, "namespace": namespace, "name": name, "uid": uid, "actor": actor}
    with gateway(kubeconfig, context, namespace) as opened:
        found = opened.entries(**where, type=type_ or None, after=after, limit=limit, newest="true" if newest else None)
    emit(found, output, lambda: columns(_HEADER, [cells(item) for item in found]))


@app.command("stream")
def stream(
    type_: TypeOption = None,
    kind: KindOption = None,
    namespace: NamespaceOption = None,
    name: NameOption = None,
    uid: UidOption = None,
    actor: ActorOption = None,
    after: AfterOption = -1,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Print entries as they are appended, until Ctrl-C. With -o json, one per line."""
    where = {"kind": kind, "namespace": namespace, "name": name, "uid": uid, "actor": actor}
    with gateway(kubeconfig, context, namespace) as opened:
        for item in opened.lines("/v1/log/stream", **where, type=type_ or None, after=after):
            show(item, output)


app.command("tail")(tail)
app.command("verify")(verify)
app.command("checkpoint")(checkpoint)
app.add_typer(keys_app, name="keys")
