"""What a run is offered: the operations its Tools listed when it began, as far as the rules let them be called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triplane.api.tool import ToolSpec
from triplane.domain.journal import escape_json
from triplane.domain.toolcall import Rules, needs_leave, offered_name, refused_by_rules
from triplane.session.tools.peer import Definition
from triplane.session.tools.servers import Server


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as the harness may call it."""

    tool: str
    definition: Definition
    server: Server
    spec: ToolSpec


def offer(rules: Rules, servers: Mapping[str, Server]) -> dict[str, Operation]:
    """By the name the harness calls it by."""
    found: dict[str, Operation] = {}
    for tool, server in servers.items():
        for operation, definition in server.operations.items():
            name = offered_name(tool, operation)
            if name is not None and refused_by_rules(rules, tool, operation) is None:
                found[name] = Operation(tool, definition, server, rules.tools[tool])
    return found


def shown(name: str, operation: Operation) -> dict[str, Any]:
    """The operation as ``tools/list`` shows it."""
    spec, definition = operation.spec, operation.definition
    notes = []
    if needs_leave(spec, definition.name):
        notes.append("Each call waits for a person's leave.")
    if spec.cost_minor_units:
        notes.append(f"Each call costs {spec.cost_minor_units} minor units of the budget.")
    shown: dict[str, Any] = {
        "name": name,
        "description": "\n\n".join(filter(None, (definition.description, " ".join(notes)))),
        "inputSchema": escape_json(definition.input_schema),
    }
    if definition.title is not None:
        shown["title"] = definition.title
    if definition.annotations is not None:
        shown["annotations"] = dict(definition.annotations)
    return shown
