"""Calls of tools, as session hosts report them: the question to a person, what is about to be called, what came of it.

What a call costs, how far it reaches and who may give leave to it is read from the frozen work order, never from the
host; that leave was given, from the store. Arguments and results are stored cleaned, as journals are.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from triplane.api.authority import Axis
from triplane.api.tool import EgressClass, ToolSpec
from triplane.audit.digest import canonical_json
from triplane.audit.entry import format_time
from triplane.domain.journal import clean_json
from triplane.domain.session import Offer, Question, SessionView
from triplane.domain.tool_log import UNKNOWN_KEY, Invocation, tool_asked, tool_begun, tool_invoked
from triplane.domain.toolcall import (
    CallStatus,
    Leave,
    Rule,
    key_of,
    needs_leave,
    offered_name,
    subject_digest,
    subject_document,
)
from triplane.errors import Conflict, InvalidInput
from triplane.gateway.answers import Refusal, json_answer
from triplane.gateway.appending import ensure_recorded, record_news
from triplane.gateway.auth import CallerDep, live_run_of, require_run
from triplane.gateway.bell import wait_for_any
from triplane.gateway.bodies import Body, Count, read_body
from triplane.gateway.config import MAX_WAIT_SECONDS
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.tokens import RunClaim

router = APIRouter(prefix="/v1/sessions/{uid}/runs/{run}")
_log = structlog.get_logger()
CALL_LIMIT: Final = 4 * 1024 * 1024
"""Octets of a report: arguments and result, both bounded by the session host well below this."""
_LOOK_SECONDS: Final = 2.0
RunNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
Invoked = Annotated[str, Field(max_length=40, pattern=r"^call-[1-9][0-9]{0,9}-[1-9][0-9]{0,9}$")]
ToolName = Annotated[str, Field(max_length=253)]
OperationName = Annotated[str, Field(max_length=1024)]


class CallBody(Body):
    invocation: Invoked
    tool: ToolName
    operation: OperationName
    arguments: dict[str, Any]


class QuestionBody(CallBody):
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0


class InvocationBody(CallBody):
    status: Annotated[CallStatus, Field(strict=False)]
    leave: Annotated[Leave, Field(strict=False)]
    milliseconds: Count
    output: Any
    rule: Annotated[Rule | None, Field(strict=False)] = None
    axis: Annotated[Axis | None, Field(strict=False)] = None


@router.post("/questions")
async def ask(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Ask a person for leave to make exactly this call, and wait up to ``waitSeconds`` (30) for the answer. The same
    question again gets the same answer, or waits on."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, QuestionBody, limit=CALL_LIMIT)
    view, _ = await live_run_of(gateway, claim)
    _belongs(body.invocation, run)
    tool = _tool_of(view.offer, body)
    if tool.spec is None or not tool.spec.approvers:
        raise InvalidInput(f"{tool.key} asks for no leave: nobody is named who could give it")
    subject = await _subject(tool.key, body.arguments)
    if subject.redacted:
        raise Refusal(
            422,
            Rule.UNSEEN.value,
            "the arguments hold a secret, or characters a reader does not see: nobody could tell what they give leave "
            "to. Leave them out",
        )
    stored = await _keep(gateway, view, subject.octets)
    now = await gateway.backends.sessions.now()
    question = await gateway.backends.sessions.ask(
        Question(
            session_uid=uid,
            run=run,
            invocation=body.invocation,
            digest=stored,
            tool=tool.key,
            approvers=tuple(tool.spec.approvers),
            asked_at=now,
            until=now + timedelta(seconds=tool.spec.approval_timeout_seconds),
        )
    )
    await ensure_recorded(gateway.backends.log, [tool_asked(view.offer, question)])
    return json_answer(await _answered(gateway, claim, question, min(body.wait_seconds, MAX_WAIT_SECONDS)))


@router.post("/calls")
async def begin(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """A call is about to be made: it is in the log before anything happens."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, CallBody, limit=CALL_LIMIT)
    view, _ = await live_run_of(gateway, claim)
    _belongs(body.invocation, run)
    tool = _tool_of(view.offer, body)
    digest = await _keep(gateway, view, (await _subject(tool.key, body.arguments)).octets)
    entry = tool_begun(view.offer, run, body.invocation, tool.key, digest, tool.egress)
    await record_news(gateway.backends.log, entry)
    return json_answer({"invocation": body.invocation})


@router.post("/invocations")
async def invoked(uid: str, run: RunNumber, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """What came of a call. The same report again changes nothing; another under the same name is refused."""
    claim = require_run(caller, uid, run)
    body = await read_body(request, InvocationBody, limit=CALL_LIMIT)
    view, _ = await live_run_of(gateway, claim)
    _belongs(body.invocation, run)
    tool = _tool_of(view.offer, body)
    subject = await _subject(tool.key, body.arguments)
    answered = await _leave_of(gateway, uid, body, tool)
    cleaned = await asyncio.to_thread(clean_json, body.output)
    call = Invocation(
        run=run,
        invocation=body.invocation,
        key=tool.key,
        status=body.status,
        leave=body.leave,
        input=await _keep(gateway, view, subject.octets),
        output=await _keep(gateway, view, await asyncio.to_thread(canonical_json, cleaned)),
        egress=tool.egress,
        cost_minor_units=0 if body.status is CallStatus.REFUSED or tool.spec is None else tool.spec.cost_minor_units,
        milliseconds=body.milliseconds,
        redacted=subject.redacted or cleaned != body.output,
        rule=body.rule.value if body.rule is not None else None,
        axis=body.axis.value if body.axis is not None else None,
    )
    await gateway.backends.log.append([tool_invoked(view.offer, call, answered)])
    _log.info("tool called", session=uid, run=run, tool=tool.key, status=body.status.value, rule=call.rule)
    return json_answer({"invocation": body.invocation, "input": call.input, "output": call.output})


@dataclass(frozen=True, slots=True)
class _Called:
    """The operation a report is about, as the session's work order knows it."""

    key: str
    spec: ToolSpec | None

    @property
    def egress(self) -> EgressClass:
        return EgressClass.NONE if self.spec is None else self.spec.egress


@dataclass(frozen=True, slots=True)
class _Subject:
    """Tool and arguments as they are stored."""

    octets: bytes
    redacted: bool


def _tool_of(offer: Offer, body: CallBody) -> _Called:
    """Names that are none go under one key of their own, so that nothing of a model's making gets into the log."""
    found = next((item for item in offer.work_order.get("tools") or () if item["name"] == body.tool), None)
    if found is None or offered_name(body.tool, body.operation) is None:
        return _Called(UNKNOWN_KEY, None)
    return _Called(key_of(body.tool, body.operation), ToolSpec.model_validate(found["spec"]))


async def _subject(key: str, arguments: dict[str, Any]) -> _Subject:
    """In a thread, as all that goes over a whole report: what a model and its tools make of one may take a second to
    clean, and everybody else's requests are served meanwhile."""

    def made() -> _Subject:
        cleaned = clean_json(arguments)
        return _Subject(subject_document(key, cleaned), cleaned != arguments)

    return await asyncio.to_thread(made)


def _belongs(invocation: str, run: int) -> None:
    if not invocation.startswith(f"call-{run}-"):
        raise InvalidInput(f"{invocation} is no call of run {run}: name it call-{run}-<n>")


async def _keep(gateway: Gateway, view: SessionView, octets: bytes) -> str:
    digest = await gateway.backends.content.store(octets)
    await gateway.backends.sessions.own_blob(view.offer.namespace, digest)
    return digest


async def _leave_of(gateway: Gateway, uid: str, body: InvocationBody, tool: _Called) -> Question | None:
    """The question a person answered about this call. Raises ``Conflict`` where the store says otherwise than the host
    does: leave is what the store has, and for these arguments alone."""
    if body.leave not in (Leave.APPROVED, Leave.REJECTED):
        made = body.status is not CallStatus.REFUSED
        if made and tool.spec is not None and needs_leave(tool.spec, body.operation):
            raise Conflict(f"{body.invocation}: {tool.key} was called without the leave that its Tool demands")
        return None
    approved = body.leave is Leave.APPROVED
    digest = subject_digest(tool.key, body.arguments)
    for question in await gateway.backends.sessions.questions([uid]):
        if (question.invocation, question.digest, question.answer) == (body.invocation, digest, approved):
            return question
    raise Conflict(f"{body.invocation}: nobody has {body.leave.value} {tool.key} with these arguments")


async def _answered(gateway: Gateway, claim: RunClaim, question: Question, seconds: float) -> dict[str, Any]:
    """The answer, once there is one, the time is over, the run has ended, or ``seconds`` have gone by."""
    deadline = gateway.clock.monotonic() + seconds
    while True:
        rung = gateway.bell.subscribe()
        kept = next(
            each
            for each in await gateway.backends.sessions.questions([question.session_uid])
            if each.invocation == question.invocation
        )
        over = await gateway.backends.sessions.now() >= kept.until
        left = deadline - gateway.clock.monotonic()
        if kept.answer is not None or over or left <= 0 or gateway.stopping.is_set():
            return {
                "answer": kept.answer,
                "over": over,
                "until": format_time(kept.until),
                "digest": kept.digest,
                "review": kept.review,
            }
        await wait_for_any(min(left, _LOOK_SECONDS), rung, gateway.stopping)
        await live_run_of(gateway, claim)
