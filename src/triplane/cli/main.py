"""``triplane``, which is also ``kubectl triplane``: the commands by noun, and one place where errors become exits.

Exit codes: 0 done, 1 what was asked about is not well or not there, 2 wrong usage, nothing to talk to, or what
is needed to tell was archived.
Commands import what they need when they run, so that help and completion answer at once.
"""

import sys
from typing import Any

import typer

from triplane.cli import (
    archive,
    artifact,
    asrun,
    attest,
    backup,
    blob,
    capability,
    cluster,
    conformance,
    demo,
    export,
    graph,
    keys,
    lineage,
    log,
    logs,
    policy,
    proof,
    reflections,
    review,
    sessions,
    status,
    tool,
    up,
    verify,
    version,
    why,
    why_denied,
    witness,
)
from triplane.errors import Archived, Forbidden, InvalidInput, TriplaneError, Unavailable

OK, NOT_WELL, CANNOT = 0, 1, 2
INTERRUPTED = 130


class _App(typer.Typer):
    """A Typer whose errors are sentences."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(OK)
        except Exception as error:
            typer.echo(f"error: {_sentence(error)}", err=True)
            sys.exit(exit_code(error))


def exit_code(error: Exception) -> int:
    """2 when the caller or the way there is at fault, or the answer lies in the archive; 1 when the thing asked about
    is at fault."""
    return CANNOT if isinstance(error, InvalidInput | Unavailable | Forbidden | Archived) else NOT_WELL


def _sentence(error: Exception) -> str:
    if isinstance(error, TriplaneError):
        return str(error)
    return f"{type(error).__name__}: {error}\n  this is a defect of triplane itself; please report it"


app = _App(
    name="triplane",
    help="Accountable agent work on Kubernetes: who did what, from which inputs, and who reviewed it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("demo")(demo.demo)
app.command("migrate")(up.migrate)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.add_typer(cluster.app, name="cluster")
app.command("status")(status.status)
app.command("why")(why.why)
app.command("why-denied")(why_denied.why_denied)
app.command("logs")(logs.logs)
app.command("lineage")(lineage.lineage)
app.command("as-run")(asrun.as_run)
app.command("sessions")(sessions.sessions)
app.command("reflections")(reflections.reflections)
app.add_typer(graph.app, name="graph")
app.add_typer(capability.app, name="capability")
app.add_typer(artifact.app, name="artifact")
app.add_typer(attest.app, name="attest")
app.add_typer(keys.app, name="keys")
app.add_typer(blob.app, name="blob")
log.app.command("archive")(archive.archive)
log.app.command("export")(export.export)
app.add_typer(log.app, name="log")
app.add_typer(policy.app, name="policy")
app.add_typer(proof.app, name="proof")
app.add_typer(review.app, name="review")
app.add_typer(tool.app, name="tool")
app.add_typer(witness.app, name="witness")
app.command("verify")(verify.verify)
app.command("conformance")(conformance.conformance)
app.command("version")(version.version)
app.command("completion")(version.completion)

if __name__ == "__main__":
    app()
