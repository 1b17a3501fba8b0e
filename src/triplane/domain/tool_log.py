"""The log entries about calls of tools, built from what the gateway has checked and stored.

As in ``triplane.domain.events``: a body depends on stored values alone, so that a repeated report is a no-op.
"""

from dataclasses import dataclass
from typing import Any, Final

from triplane.api.tool import EgressClass
from triplane.audit.entry import event_id, format_time
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventSubject
from triplane.domain.events import graph_stream
from triplane.domain.session import Offer, Question
from triplane.domain.toolcall import CallStatus, Leave

UNKNOWN_KEY: Final = "unknown"
"""Key of a call whose name is none of a Tool of the run; what was asked for is in the blob."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a tool as it is logged."""

    run: int
    invocation: str
    """``call-<run>-<n>``: unique in the session."""
    key: str
    """``<Tool>/<operation>``, or ``UNKNOWN_KEY``."""
    status: CallStatus
    leave: Leave
    input: str
    """Digest of the stored ``{"tool", "arguments"}``."""
    output: str
    """Digest of the stored result, or of ``{"refused": …}``."""
    egress: EgressClass
    cost_minor_units: int
    milliseconds: int
    redacted: bool
    """What is stored differs from what was passed: secrets, or characters nobody sees, were replaced."""
    rule: str | None = None
    """Why it was refused (``domain.toolcall.Rule``)."""
    axis: str | None = None


def tool_asked(offer: Offer, question: Question) -> EventBody:
    """``tool.asked/<session>/<run>/<invocation>``."""
    data = {
        "run": question.run,
        "invocation": question.invocation,
        "tool": question.tool,
        "digest": question.digest,
        "until": format_time(question.until),
    }
    return _body("tool.asked", offer, question.run, question.invocation, data, (question.digest,))


def tool_begun(offer: Offer, run: int, invocation: str, key: str, input_: str, egress: EgressClass) -> EventBody:
    """``tool.begun/<session>/<run>/<invocation>``: what a host that dies in the middle of a call leaves behind."""
    data = {"run": run, "invocation": invocation, "tool": key, "input": input_, "egress": egress.value}
    return _body("tool.begun", offer, run, invocation, data, (input_,))


def tool_invoked(offer: Offer, call: Invocation, answered: Question | None) -> EventBody:
    """``tool.invoked/<session>/<run>/<invocation>``; ``answered`` is the question a person answered about it."""
    data: dict[str, Any] = {
        "run": call.run,
        "invocation": call.invocation,
        "tool": call.key,
        "status": call.status.value,
        "approval": call.leave.value,
        "input": call.input,
        "output": call.output,
        "egress": call.egress.value,
        "costMinorUnits": call.cost_minor_units,
        "milliseconds": call.milliseconds,
        "redacted": call.redacted,
    }
    optional = {
        "rule": call.rule,
        "axis": call.axis,
        "review": answered.review if answered is not None else None,
        "approver": answered.principal if answered is not None else None,
    }
    data |= {name: value for name, value in optional.items() if value is not None}
    blobs = tuple(dict.fromkeys((call.input, call.output)))
    return _body("tool.invoked", offer, call.run, call.invocation, data, blobs)


def _body(
    kind: str, offer: Offer, run: int, invocation: str, data: dict[str, Any], blobs: tuple[str, ...]
) -> EventBody:
    return EventBody(
        id=event_id(kind, offer.session_uid, run, invocation),
        type=kind,
        stream=graph_stream(offer.graph_uid),
        actor=SYSTEM_ACTOR,
        subject=EventSubject(kind="AgentSession", namespace=offer.namespace, name=offer.name, uid=offer.session_uid),
        data=data,
        blobs=blobs,
    )
