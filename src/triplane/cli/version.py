"""``triplane version`` and ``triplane completion``."""

from enum import StrEnum
from typing import Annotated

import typer

from triplane.cli.output import Format, FormatOption, emit


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def version(output: FormatOption = Format.TABLE) -> None:
    """Print the version of triplane, of its API and of Python."""
    import importlib.metadata
    import platform

    from triplane.api.text import API_VERSION

    found = {
        "triplane": importlib.metadata.version("triplane"),
        "api": API_VERSION,
        "python": platform.python_version(),
    }
    emit(found, output, lambda: typer.echo("\n".join(f"{name} {text}" for name, text in found.items())))


def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print a completion script: `source <(triplane completion bash)`."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="triplane", complete_var="_TRIPLANE_COMPLETE", shell=shell.value)
    typer.echo(script)
