"""``triplane log tail``: the last entries, and with ``-f`` those to come, whatever happens to the gateway meanwhile."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import ContextOption, KubeconfigOption, NamespaceOption, gateway
from triplane.cli.log_options import ActorOption, KindOption, NameOption, TypeOption, UidOption, show
from triplane.cli.output import Format, FormatOption, note
from triplane.errors import Unavailable

if TYPE_CHECKING:
    from triplane.cli.gateway import Gateway

_AGAIN_SECONDS = 1.0


def tail(
    type_: TypeOption = None,
    kind: KindOption = None,
    namespace: NamespaceOption = None,
    name: NameOption = None,
    uid: UidOption = None,
    actor: ActorOption = None,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last ones.", min=0, max=10_000)] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those to come, until Ctrl-C.")] = False,
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Print the last entries, oldest first. With -o json, one per line.

    Following goes on behind the last entry seen when the gateway was away: nothing is missed, nothing comes twice.
    """
    where = {"kind": kind, "namespace": namespace, "name": name, "uid": uid, "actor": actor, "type": type_ or None}
    with gateway(kubeconfig, context, namespace) as opened:
        newest = opened.entries(**where, limit=max(lines, 1), newest="true")
        for item in reversed(newest[:lines]):
            show(item, output)
        if follow:
            for item in followed(opened, where, newest[0]["seq"] if newest else -1):
                show(item, output)


def followed(opened: "Gateway", where: Mapping[str, Any], after: int) -> Iterator[dict[str, Any]]:
    """Matching entries behind ``after``, for ever. Raises what asking again does not mend."""
    waited = False
    while True:
        try:
            for number, item in opened.events("/v1/log/stream", last=after, **where):
                waited, after = False, max(after, number)
                if item is not None:
                    yield item
        except Unavailable as error:
            if not waited:
                note(f"{error}; trying again")
            waited = True
        time.sleep(_AGAIN_SECONDS)
