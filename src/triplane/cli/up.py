"""``triplane up``, ``down`` and ``migrate``: a whole installation on this machine."""

import asyncio
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli import isolation
from triplane.cli.connect import settings
from triplane.cli.output import note, one_line

if TYPE_CHECKING:
    from triplane.settings import Settings


class Where(StrEnum):
    """Which cluster (``CLUSTER=``)."""

    LOCAL = "local"
    KIND = "kind"
    CURRENT = "current"


ProgramsOption = Annotated[
    Path | None,
    typer.Option("--programs", help="Folder of harness programs you approve.", exists=True, file_okay=False),
]
WhereOption = Annotated[
    Where, typer.Option("--cluster", envvar="CLUSTER", help="local, kind, or the current kubeconfig's.")
]


def up(
    programs: ProgramsOption = None,
    where: WhereOption = Where.LOCAL,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Open this one to alice and bob; repeatable.")
    ] = None,
) -> None:
    """Start control plane, Postgres, webhook, gateway, operator and runner. Ctrl-C before the end stops it all."""
    chosen = with_settings(settings(), programs=programs.resolve()) if programs else settings()
    began = time.monotonic()
    asyncio.run(start(chosen, where, namespace or []))
    note(f"up after {time.monotonic() - began:.0f} s; everything is in {chosen.home}")
    isolation.expect(chosen, isolation.problem())
    typer.echo(next_commands(chosen, where))


def down() -> None:
    """Stop everything of this home. Data stays."""
    from triplane.localcluster import installation

    asyncio.run(installation.down(settings(), progress=progress()))
    note("down")


def migrate() -> None:
    """Bring the database schema up to date, as the migrator; repeating it changes nothing."""
    from triplane.localcluster import database

    typer.echo(f"migrated; the log's origin is {asyncio.run(database.prepare(settings()))}")


async def start(chosen: "Settings", where: Where, namespaces: list[str]) -> None:
    """``installation.up`` with progress on standard error."""
    from triplane.localcluster import installation

    choice = installation.ClusterChoice(where.value)
    await installation.up(chosen, cluster=choice, namespaces=namespaces, progress=progress())


def with_settings(current: "Settings", **more: Any) -> "Settings":
    """The settings with these given too: what is given is what the supervised processes get."""
    given: dict[str, Any] = {name: getattr(current, name) for name in current.model_fields_set}
    return type(current)(**(given | more))


def progress() -> Callable[[str], None]:
    """Prints each line with the seconds since the start; a terminal sees it at once."""
    began = time.monotonic()

    def show(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {one_line(line)}", file=sys.stderr, flush=True)

    return show


def next_commands(chosen: "Settings", where: Where, more: Sequence[str] = ("status -A",)) -> str:
    """What one may type next, as it stands: with the variables it needs, and ``triplane`` where it lies."""
    ours = {Where.LOCAL: "kubeconfig-admin", Where.KIND: "kubeconfig-kind"}
    variables = [f"KUBECONFIG={shlex.quote(str(chosen.secrets / ours[where]))}"] if where in ours else []
    if chosen.home != type(chosen).model_fields["home"].get_default(call_default_factory=True):
        variables.append(f"TRIPLANE_HOME={shlex.quote(str(chosen.home))}")
    folder = Path(sys.executable).parent
    if shutil.which("triplane") is None and (folder / "triplane").exists():
        variables.append(f"PATH={shlex.quote(str(folder))}:$PATH")
    commands = [
        *([f"export {' '.join(variables)}"] if variables else []),
        "kubectl get triplane -A",
        *(f"triplane {words}" for words in more),
        "triplane down",
    ]
    return "\n".join(f"  {command}" for command in commands)
