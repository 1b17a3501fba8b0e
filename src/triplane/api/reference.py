"""Renders the reference pages of the kinds from the same schema users meet, so that neither can drift."""

from collections.abc import Iterator, Mapping
from typing import Any

from triplane.api.conditions import CONDITION_TYPES
from triplane.api.crd import CATEGORY, render
from triplane.api.kinds import KINDS
from triplane.api.meta import PHASE_OF, TERMINAL, WAITING, Phase, Resource, State
from triplane.api.reasons import REASONS
from triplane.api.text import API_VERSION, GROUP, PLAIN_LINE, PLAIN_TEXT

GENERATED = "<!-- Generated from src/triplane/api by `make generate`; do not edit. -->"
_AUTHORS = {
    "Task": "the operator (people may too)",
    "Review": "the operator for an agent's review, or by a person",
    "AgentSession": "the operator only",
    "Artifact": "the operator only",
}
_TEXT_CLASSES = {
    PLAIN_TEXT: "plain text",
    PLAIN_LINE: "plain text on one line",
}


def kind_page(kind_cls: type[Resource]) -> str:
    """The Markdown page of one kind: names, spec, rules, status and columns."""
    definition = render(kind_cls)
    names = definition["spec"]["names"]
    version = definition["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    author = _AUTHORS.get(kind_cls.kind_name(), "people and GitOps")
    lines = [
        GENERATED,
        f"# {names['kind']}",
        "",
        version["schema"]["openAPIV3Schema"]["description"],
        "",
        f"`apiVersion: {API_VERSION}`, `kind: {names['kind']}`; resource `{names['plural']}.{GROUP}`, "
        f"short name `{'`, `'.join(names['shortNames'])}`, category `{CATEGORY}`; namespaced. "
        f"Its spec is written by {author}.",
        "",
        "## Spec",
        "",
        *_fields(properties["spec"]),
        *_rules(properties["spec"]),
    ]
    if status := properties.get("status"):
        lines += ["", "## Status", "", "Written by the operator only.", "", *_fields(status)]
        lines += _first_visit(kind_cls)
    else:
        lines += ["", "## Status", "", f"{names['kind']} has no status."]
    lines += ["", "## Columns", "", "| column | from | shown |", "|---|---|---|"]
    for column in version["additionalPrinterColumns"]:
        shown = "with `-o wide`" if column.get("priority") else "always"
        lines.append(f"| {column['name']} | `{_cell(column['jsonPath'])}` | {shown} |")
    selectable = [f"`{field['jsonPath'].removeprefix('.')}`" for field in version.get("selectableFields", [])]
    lines += ["", f"Field selectors: {', '.join(selectable) or 'none but name and namespace'}."]
    return "\n".join(lines) + "\n"


def states_page() -> str:
    """States, phases and condition types: one table each."""
    lines = [
        GENERATED,
        "# States, phases and conditions",
        "",
        "`status.state` is what a Node, Task or AgentSession is doing. `status.phase` is derived from it,",
        "for columns and field selectors only; nothing decides by it. Conditions are what to wait for:",
        "`kubectl wait --for=condition=Succeeded task/NAME`.",
        "",
        "| state | phase | final |",
        "|---|---|---|",
        *(
            f"| `{state}` | {PHASE_OF[state]} | {'yes' if state in TERMINAL else ''} |"
            for state in sorted(State, key=lambda each: (list(Phase).index(PHASE_OF[each]), each))
        ),
        "",
        "## Why it waits",
        "",
        "`status.waitingReason` of a Node (and each of its steps) and a Task, while it could go on and does not.",
        "",
        "| waitingReason | means |",
        "|---|---|",
        *(f"| `{reason}` | {_cell(meaning)} |" for reason, meaning in WAITING.items()),
        "",
        "## Conditions",
        "",
        "| type | says |",
        "|---|---|",
        *(f"| `{type_}` | {_cell(meaning)} |" for type_, meaning in CONDITION_TYPES.items()),
        "",
        "## Summary condition of each kind",
        "",
        "| kind | condition |",
        "|---|---|",
        *(
            f"| [{kind}](kinds/{kind.lower()}.md) | "
            f"{f'`{cls.info.ready_condition}`' if cls.info.ready_condition else 'none: no status'} |"
            for kind, cls in KINDS.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def pages() -> Mapping[str, str]:
    """Path under ``docs/reference`` to text, for every generated page."""
    kinds = {f"kinds/{kind.lower()}.md": kind_page(cls) for kind, cls in KINDS.items()}
    return {**kinds, "states.md": states_page(), "reasons.md": reasons_page()}


def reasons_page() -> str:
    """The Markdown page of every reason, with its meaning and who must act."""
    lines = [
        GENERATED,
        "# Reasons",
        "",
        "What `reason` can be in a condition or an Event. Reasons are API: match on them, not on messages.",
        "",
        "| reason | what it means | who must act |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {reason.meaning} | {reason.act} |" for name, reason in REASONS.items()]
    return "\n".join(lines) + "\n"


def _first_visit(kind_cls: type[Resource]) -> list[str]:
    condition = kind_cls.info.ready_condition
    return [
        "",
        f"Until the operator has seen the object, `{condition}` is `Unknown` with reason `Pending`. "
        "Condition types: [states.md](../states.md).",
    ]


def _rules(spec: Mapping[str, Any]) -> list[str]:
    rules = spec.get("x-kubernetes-validations", [])
    if not rules:
        return []
    return [
        "",
        "The API server refuses a spec with one of these messages (CEL):",
        "",
        *(f"- {rule['message']}" for rule in rules),
    ]


def _fields(schema: Mapping[str, Any]) -> list[str]:
    header = ["| field | type | required | description |", "|---|---|---|---|"]
    return header + [
        f"| `{path}` | {_cell(_type(node))} | {'yes' if required else ''} | {_cell(_described(node))} |"
        for path, node, required in _walk(schema, "")
    ]


def _walk(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    for name, child in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, child, name in schema.get("required", ())
        if child["type"] == "object":
            yield from _walk(child, f"{path}.")
        elif child["type"] == "array":
            yield from _walk(child["items"], f"{path}[].")


def _type(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        cap = f" (at most {node['maxItems']})" if "maxItems" in node else ""
        return f"list{cap} of {_type(node['items'])}"
    if node["type"] == "integer":
        bounds = [
            text
            for key, text in (
                ("minimum", f"≥ {node.get('minimum')}"),
                ("maximum", f"≤ {node.get('maximum')}"),
            )
            if key in node
        ]
        return ", ".join(["integer", *bounds])
    if node["type"] == "string":
        name = _TEXT_CLASSES.get(node.get("pattern", ""), "string")
        return name + (f", ≤ {node['maxLength']} characters" if "maxLength" in node else "")
    return str(node["type"])


def _described(node: Mapping[str, Any]) -> str:
    text = str(node.get("description", ""))
    if "default" in node and not isinstance(node["default"], dict):
        text += f" Default: `{node['default']}`."
    return text


def _cell(text: str) -> str:
    """A Markdown table cell: a bare pipe would end it."""
    return text.replace("\\|", "|").replace("|", "\\|")
