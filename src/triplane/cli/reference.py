"""Writes docs/reference/cli.md from the commands themselves: ``python -m triplane.cli.reference OUT [--check]``."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from triplane.cli.main import app

_HEAD = """# The `triplane` command

Generated from the commands by `python -m triplane.cli.reference`; do not edit. Installed also as `kubectl triplane`.

Exit codes: 0 done · 1 what was asked about is not well, not there, or failed · 2 wrong usage, no permission, or nothing
to talk to · 130 interrupted. Answers go to standard output, remarks and errors to standard error.

The API server is that of `--kubeconfig`, `$TRIPLANE_KUBECONFIG`, `$KUBECONFIG`, the local installation's
`secrets/kubeconfig-admin`, or `~/.kube/config`, whichever comes first. The gateway is `$TRIPLANE_GATEWAY_URL`,
or the running installation's; it gets the kubeconfig's bearer token.
"""


def render() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    return _HEAD + "".join(_command(path, command) for path, command in _walk("triplane", root))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    commands: Mapping[str, Any] = getattr(command, "commands", {})
    if not commands:
        yield path, command
    for name, inner in commands.items():
        yield from _walk(f"{path} {name}", inner)


def _command(path: str, command: Any) -> str:
    parameters = [p for p in command.params if p.name != "help"]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    usage = " ".join([path, "[OPTIONS]", *(_metavar(p) for p in arguments)])
    lines = [f"\n## {path}\n\n{command.help}\n\n```\n{usage}\n```\n"]
    if parameters:
        lines.append("\n| | |\n|---|---|\n")
        lines += [f"| {_name(p)} | {_help(p)} |\n" for p in parameters]
    return "".join(lines)


def _metavar(parameter: Any) -> str:
    shown = str(parameter.metavar or parameter.name.upper())
    return shown if parameter.required else f"[{shown}]"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`".replace("|", "\\|")
    return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _help(parameter: Any) -> str:
    text = str(parameter.help or "")
    default = parameter.default
    if isinstance(default, Enum):
        text += f" One of {', '.join(str(choice.value) for choice in type(default))}; default {default.value}."
    elif isinstance(default, int) and not isinstance(default, bool) and default >= 0:
        text += f" Default {default}."
    if parameter.envvar:
        text += f" Also `${parameter.envvar}`."
    return text.replace("|", "\\|")


def _main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference of the command line.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if it is not up to date")
    options = parser.parse_args()
    page = render()
    if not options.check:
        options.out.write_text(page, encoding="utf-8")
        return 0
    if options.out.is_file() and options.out.read_text(encoding="utf-8") == page:
        return 0
    print(f"{options.out} is not what the commands say: run `make generate`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(_main())
