"""``triplane witness``: cosign the checkpoints of logs that are known here (C2SP tlog-witness)."""

from pathlib import Path
from typing import Annotated

import typer

from triplane.cli.output import note

app = typer.Typer(help="Run a witness: it cosigns checkpoints, and never two stories of one log.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="The witness's folder.", file_okay=False)]


@app.command("init")
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option("--name", help="What its cosignatures are signed as, such as example.org/w1.")],
) -> None:
    """Make a witness: a key, an empty record, an empty list of logs. Prints the key that others pin."""
    from triplane.witness.folder import make

    made = make(folder, name)
    note(f"list the logs in {folder / 'logs'}, one a line: <origin> <key>; then: triplane witness serve {folder}")
    typer.echo(str(made.key))


@app.command("key")
def key(folder: FolderArgument) -> None:
    """Print the key that others pin (`--witness`)."""
    from triplane.witness.folder import identity

    typer.echo(str(identity(folder).key))


@app.command("serve")
def serve(
    folder: FolderArgument,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:7380",
) -> None:
    """Serve until SIGTERM. Needs the folder alone: no database, no cluster. Prints its URL when it listens."""
    import asyncio

    from triplane.logging import configure_logging
    from triplane.witness.server import parse_address
    from triplane.witness.server import serve as serve_witness

    host, port = parse_address(listen)
    configure_logging()
    asyncio.run(serve_witness(folder, host, port))
