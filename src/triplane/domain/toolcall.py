"""May this call be made? Decided here, purely, for every single invocation of a Tool.

What MCP calls a tool is an *operation* here; its key is ``<Tool>/<operation>``, its offered name
``<Tool>__<operation>``: names of Tools hold no underscore, so no two keys share an offered name. The harness is offered
what authority ∩ ``allow`` − ``deny`` leaves, as the server listed it when the run began, and every call is held against
the same rules again: an authority may expire and a budget be spent while a run goes on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from triplane.api.authority import Axis
from triplane.api.tool import ToolSpec
from triplane.audit.digest import canonical_json, digest_of_bytes
from triplane.domain.pattern import EVERYTHING, any_fits, fits

SEPARATOR: Final = "__"
MAX_NAME: Final = 128
"""Characters of an offered name (MCP 2025-11-25, "Tool Names")."""
_OPERATION = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)


class CallStatus(StrEnum):
    """How an invocation ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The tool said that it failed, broke its protocol, or is gone."""
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    """It never reached the tool."""


class Leave(StrEnum):
    """Whether a person had to give leave to the call, and what came of it."""

    NOT_REQUIRED = "not_required"
    APPROVED = "approved"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    NOT_ASKED = "not_asked"
    """It was refused for another reason before anybody was asked."""


class Rule(StrEnum):
    """Which rule refuses a call."""

    UNKNOWN = "UnknownOperation"
    AUTHORITY = "AuthorityExceeded"
    EXPIRED = "AuthorityExpired"
    ALLOW = "ToolNotAllowed"
    DENY = "ToolDenied"
    BUDGET = "BudgetExceeded"
    INPUT = "InputInvalid"
    CHANGED = "ToolChanged"
    UNAVAILABLE = "ToolUnavailable"
    OVER = "RunEnded"
    UNSEEN = "ArgumentsHidden"
    REJECTED = "ApprovalRejected"
    UNANSWERED = "ApprovalTimedOut"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not made, so that the model, and whoever reads the log, can do something about it."""

    rule: Rule
    value: str
    """What was asked for."""
    limit: str
    """What is allowed instead."""
    who: str
    """Who can change it."""
    axis: Axis | None = None

    def text(self) -> str:
        """One paragraph for the model."""
        axis = f" on axis {self.axis.value}" if self.axis is not None else ""
        return (
            f"Refused ({self.rule.value}){axis}: {self.value}. Limit: {self.limit}. Who can change it: {self.who}. "
            "Repeating the same call will be refused again."
        )


@dataclass(frozen=True, slots=True)
class Allowed:
    """The call may be made; with ``needs_leave`` once a person has said yes to exactly these arguments."""

    needs_leave: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What a run's calls are held against: the authority frozen with its session, and the Tools'."""

    granted: Sequence[str] | None
    """Patterns of the axis tools; None grants nothing: a frozen authority has every axis."""
    tools: Mapping[str, ToolSpec]
    expires_at: datetime | None = None


def key_of(tool: str, operation: str) -> str:
    """``<Tool>/<operation>``: what patterns of authority describe."""
    return f"{tool}/{operation}"


def offered_name(tool: str, operation: str) -> str | None:
    """The name the harness calls it by; None where MCP has no such name, and then it is not offered."""
    name = f"{tool}{SEPARATOR}{operation}"
    return name if _OPERATION.fullmatch(operation) and len(name) <= MAX_NAME else None


def demanded_keys(tools: Iterable[str]) -> tuple[str, ...]:
    """What a Task demands on the axis tools by naming these Tools in ``spec.tools``: some operation of each."""
    return tuple(f"{tool}/*" for tool in tools)


def within_reach(granted: Sequence[str] | None, tool: str) -> bool:
    """Whether these patterns grant anything of the Tool. Which operations that leaves is decided call by call."""
    for pattern in granted or ():
        head, slash, rest = pattern.partition("/")
        if pattern == EVERYTHING or (slash and rest and fits(head, tool)):
            return True
    return False


def refused_by_rules(rules: Rules, tool: str, operation: str) -> Refusal | None:
    """Authority ∩ ``allow`` − ``deny``, deny first: it wins, whatever else says yes.

    ``deny`` is held against the name regardless of case: a server that takes ``Delete_file`` for ``delete_file`` is
    not a way around it. Grants and ``allow`` are exact.
    """
    key, spec = key_of(tool, operation), rules.tools.get(tool)
    if spec is None:
        who = "whoever writes the Task's spec.tools"
        return Refusal(Rule.UNKNOWN, f"{key} is of no Tool of this run", _named(rules.tools), who)
    denied = matched(spec.deny or (), operation)
    if denied is not None:
        return Refusal(
            Rule.DENY, f"{key} is denied", f"spec.deny of Tool {tool} holds {denied}", f"whoever keeps Tool {tool}"
        )
    if not any_fits(spec.allow, operation):
        limit = f"spec.allow of Tool {tool} holds {_named(spec.allow or ())}"
        return Refusal(Rule.ALLOW, f"{key} is not allowed", limit, f"whoever keeps Tool {tool}")
    if not any_fits(rules.granted or (), key):
        return Refusal(
            Rule.AUTHORITY,
            f"{key} is not granted",
            _named(rules.granted or ()),
            "whoever may widen mayUse of the Task or its Agent, within what is delegated to them",
            Axis.TOOLS,
        )
    return None


def matched(patterns: Iterable[str], operation: str) -> str | None:
    """The first pattern that fits the operation, regardless of case: for rules that hold back."""
    return next((each for each in patterns if fits(each.casefold(), operation.casefold())), None)


def decide(rules: Rules, tool: str, operation: str, *, cost_left: int | None, now: datetime) -> Refusal | Allowed:
    """The decision on one call, before its arguments are looked at. ``cost_left`` is what the budget still holds in
    minor units; None: no limit."""
    if (refusal := refused_by_rules(rules, tool, operation)) is not None:
        return refusal
    if rules.expires_at is not None and now >= rules.expires_at:
        return Refusal(
            Rule.EXPIRED,
            f"{key_of(tool, operation)} comes too late",
            f"the authority ended at {rules.expires_at.isoformat()}",
            "whoever set expiresAt",
            Axis.EXPIRY,
        )
    spec = rules.tools[tool]
    if cost_left is not None and spec.cost_minor_units > cost_left:
        return Refusal(
            Rule.BUDGET,
            f"{key_of(tool, operation)} costs {spec.cost_minor_units} minor units",
            f"{cost_left} are left of the budget",
            "whoever may raise budget.costMinorUnits of the Task, its Node or its Graph",
            Axis.COST,
        )
    return Allowed(needs_leave(spec, operation))


def needs_leave(spec: ToolSpec, operation: str) -> bool:
    """Whether a person must agree to each call."""
    return matched(spec.requires_approval or (), operation) is not None


def subject_document(key: str, arguments: Mapping[str, Any]) -> bytes:
    """What leave is given for: canonical JSON (RFC 8785) of the key and its arguments. Raises ``InvalidInput`` for
    arguments that have no such form."""
    return canonical_json({"tool": key, "arguments": dict(arguments)})


def subject_digest(key: str, arguments: Mapping[str, Any]) -> str:
    """``Question.digest``: other arguments, or another operation, are another digest, so no leave carries over."""
    return digest_of_bytes(subject_document(key, arguments))


def _named(patterns: Iterable[str]) -> str:
    return ", ".join(sorted(patterns)) or "nothing"
