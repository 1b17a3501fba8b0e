"""``triplane log``: query the event log, follow it, and verify the chain from the stored octets."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, gateway, settings
from triplane.cli.output import Format, FormatOption, columns, emit, one_line

app = typer.Typer(help="Query, follow and verify the event log.", no_args_is_help=True)

TypeOption = Annotated[list[str] | None, typer.Option("--type", help="Event type; may be repeated.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="Kind of the subject.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the subject.")]
UidOption = Annotated[str | None, typer.Option("--uid", help="UID of the subject.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Principal id, or `system`.")]
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
        found = opened.get(
            "/v1/log/entries",
            **where,
            type=type_ or None,
            after=after,
            limit=limit,
            newest="true" if newest else None,
        )["entries"]
    emit(found, output, lambda: columns(_HEADER, [_cells(item) for item in found]))


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
            if output is Format.TABLE:
                typer.echo("  ".join(one_line(cell) for cell in _cells(item)))
            else:
                import json

                typer.echo(json.dumps(item, ensure_ascii=False))


@app.command("verify")
def verify(
    first: Annotated[int, typer.Option("--first", help="First sequence number.", min=0)] = 0,
    last: Annotated[int | None, typer.Option("--last", help="Last sequence number.", min=0)] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Re-hash every stored entry, straight from the database. Exit 1 names the first bad entry and why."""
    import asyncio
    import time

    began = time.monotonic()
    found = asyncio.run(_verify(first, last))
    seconds = time.monotonic() - began
    document = {
        "ok": found.ok,
        "origin": found.origin,
        "first": found.first,
        "last": found.last,
        "count": found.count,
        "root": found.root,
        "broken": None
        if found.broken is None
        else {"seq": found.broken.seq, "reason": found.broken.reason, "message": found.broken.message},
    }
    emit(document, output, lambda: typer.echo(sentence(document, seconds)))
    if not found.ok:
        raise typer.Exit(1)


def sentence(document: Mapping[str, Any], seconds: float) -> str:
    """What verification found, in one line."""
    broken = document["broken"]
    if broken is not None:
        return f"chain BROKEN at entry {broken['seq']}: {broken['reason']}: {one_line(broken['message'])}"
    if not document["ok"]:
        return "nothing verified: the log holds no entry in that range, so nothing is proven"
    root = document["root"] or f"not computed (began at entry {document['first']})"
    return f"chain verified: {document['count']} entries, root {root} ({seconds:.2f} s)"


async def _verify(first: int, last: int | None) -> Any:
    from triplane.wiring import open_verifier

    backends = await open_verifier(settings())
    try:
        return await backends.log.verify_chain(first=first, last=last)
    finally:
        await backends.close()


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    entry = item["entry"]
    subject = entry.get("subject") or {}
    name = "/".join(part for part in (subject.get("namespace"), subject.get("name")) if part)
    return str(item["seq"]), entry["time"], entry["type"], f"{subject.get('kind', '')} {name}".strip(), entry["actor"]
