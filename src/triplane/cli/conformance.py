"""``triplane conformance``: a contract's own tests, run against anybody's backend."""

import asyncio
from typing import Annotated

import typer

from triplane.cli.output import Format, FormatOption, columns, emit, note
from triplane.errors import InvalidInput


def conformance(
    contract: Annotated[str, typer.Argument(help="content, graph, sessions or log.")],
    backend: Annotated[
        str, typer.Option("--backend", "-b", help="module:function; each call opens another empty store.")
    ],
    only: Annotated[str, typer.Option("--only", "-k", help="Only rules with these words.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where each failing rule failed.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run the tests that every shipped backend passes against a backend of your own. Exit 1 when a rule is broken.

    Needs the extra triplane[conformance]. docs/how-to/write-a-backend.md says what the function has to give."""
    try:
        from triplane.conformance.running import run
    except ImportError as error:
        raise InvalidInput(
            f"{error.name} is not installed: install triplane[conformance], which brings what the suites need"
        ) from error

    rules = asyncio.run(run(contract, backend, verbose=verbose, only=only))
    broken = [rule for rule in rules if not rule.held]
    document = {
        "contract": contract,
        "backend": backend,
        "rules": [
            {"suite": rule.suite, "rule": rule.sentence, "held": rule.held, "why": rule.why, "seconds": rule.seconds}
            for rule in rules
        ],
    }
    header = ("SUITE", "RULE", "HELD", "WHY")
    cells = [(rule.suite, rule.sentence, "yes" if rule.held else "NO", rule.why) for rule in rules]
    emit(document, output, lambda: columns(header, cells))
    note(f"{contract}: {len(rules) - len(broken)} of {len(rules)} rules held by {backend}")
    if broken:
        raise typer.Exit(1)
