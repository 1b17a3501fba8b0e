"""``triplane cluster``: the control plane alone, and how every process of this home stands."""

import asyncio
from typing import Any

import typer

from triplane.cli.connect import settings
from triplane.cli.output import Format, FormatOption, columns, emit
from triplane.cli.up import progress

app = typer.Typer(help="Run the local control plane; see every process.", no_args_is_help=True)


@app.command("up")
def up() -> None:
    """Build (once) and start etcd, kube-apiserver and kube-controller-manager, with Triplane's kinds installed."""
    asyncio.run(_up())


@app.command("down")
def down() -> None:
    """Stop the control plane. Data stays. `triplane down` stops everything."""
    from triplane.localcluster.controlplane import LocalCluster

    asyncio.run(LocalCluster(settings()).down(progress()))


@app.command("status")
def status(output: FormatOption = Format.TABLE) -> None:
    """List the processes of this home. Exit 1 unless all that should run are ready."""
    from triplane.localcluster import installation

    found = asyncio.run(installation.status(settings()))
    supervisor = found.supervisor
    document: dict[str, Any] = {
        "ready": found.ready,
        "supervisor": supervisor.phase.value if supervisor else "absent",
        "processes": [
            {
                "name": process.name,
                "pid": process.pid,
                "ready": process.ready,
                "restarts": supervisor.restarts.get(process.name, 0) if supervisor else 0,
                "log": str(process.log),
            }
            for process in found.processes
        ],
    }
    emit(document, output, lambda: _show(document))
    # The control plane alone may run without a supervisor; then it is what must be ready.
    running = [process for process in found.processes if process.pid is not None]
    if not (found.ready or (supervisor is None and running and all(process.ready for process in running))):
        raise typer.Exit(1)


async def _up() -> None:
    from triplane.localcluster.controlplane import LocalCluster
    from triplane.localcluster.install import install

    chosen = settings()
    control_plane = LocalCluster(chosen)
    show = progress()
    try:
        await control_plane.up(show)
        async with control_plane.api_server() as server:
            await install(server, chosen.secrets, progress=show)
    except BaseException:
        await asyncio.shield(control_plane.down(show))
        raise
    typer.echo(f"export KUBECONFIG={control_plane.admin_kubeconfig}")


def _show(document: dict[str, Any]) -> None:
    if not document["processes"]:
        typer.echo("nothing was ever started here; `triplane up` does")
        return
    rows = [
        [p["name"], p["pid"], "ready" if p["ready"] else "-", p["restarts"], p["log"]] for p in document["processes"]
    ]
    columns(["PROCESS", "PID", "STATE", "RESTARTS", "LOG"], rows)
    typer.echo(f"supervisor: {document['supervisor']}")
