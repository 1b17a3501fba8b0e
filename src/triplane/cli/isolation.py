"""Says in plain words how agents are isolated here: before they run what is to be expected, afterwards what was."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from triplane.cli.output import colour, note

if TYPE_CHECKING:
    from triplane.settings import Settings

NOT_ENFORCED = "nothing keeps an agent from your files, your other processes and the network"
_PAGE = "docs/how-to/run-as-an-ordinary-user.md"


def problem() -> str | None:
    """Why no sandbox is possible for this user on this machine; None where one was seen to work."""
    from triplane.session.interpreter import find_interpreter
    from triplane.session.isolation import find_isolation

    isolation = asyncio.run(find_isolation(find_interpreter()))
    return None if isolation.sandbox is not None else isolation.problem


def expect(chosen: "Settings", why: str | None) -> None:
    """Warn, if there is something to warn of."""
    if why is None:
        return
    note(f"no sandbox is possible for you on this machine: {why}")
    if chosen.allow_unisolated:
        note(colour(f"agents run NOT isolated: {NOT_ENFORCED}. Their sessions say Isolated=False.", "red"))
    else:
        note("sessions are refused (NoSandbox) until there is one, or you accept TRIPLANE_ALLOW_UNISOLATED=true:")
        note(f"with that, {NOT_ENFORCED}")
    note(f"what to do about it: {_PAGE}")


def tell(sessions: Sequence[Mapping[str, Any]]) -> None:
    """Only what was observed: a session that does not say Isolated=True is named."""
    from triplane.domain.conditions import condition

    isolated = {s["metadata"]["name"]: condition(s.get("status"), "Isolated") or {} for s in sessions}
    without = {name: found for name, found in isolated.items() if found.get("status") != "True"}
    if not without:
        typer.echo(
            f"isolation: all {len(isolated)} sessions ran in a sandbox: no network, "
            "no process and no file but their own and the interpreter's"
        )
        return
    for name, found in without.items():
        typer.echo(colour(f"NOT isolated: session {name}: {found.get('message') or 'it does not say'}", "red"))
    typer.echo(f"isolation: {len(without)} of {len(isolated)} sessions ran without a sandbox: {NOT_ENFORCED}")
