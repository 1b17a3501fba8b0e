"""The one way from a harness to its tools: every call is decided, checked, perhaps asked about, made, and told.

A result is given out only when what happened is in the log. A call that may not be made is answered with a text that
names rule, value, limit and who can change it; the harness goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from triplane.api.authority import Axis
from triplane.api.meta import Material
from triplane.api.tool import EgressClass
from triplane.domain.journal import clean_json, escape_text
from triplane.domain.redaction import KnownSecrets
from triplane.domain.toolcall import (
    SEPARATOR,
    Allowed,
    CallStatus,
    Leave,
    Refusal,
    Rule,
    Rules,
    decide,
    key_of,
    refused_by_rules,
)
from triplane.errors import InvalidInput
from triplane.session.client import RunEnded
from triplane.session.harness.protocol import Record
from triplane.session.tools.calls import Call, Ended, Purse, Teller, broken_off, refused
from triplane.session.tools.checking import ArgumentChecks, CannotCheck
from triplane.session.tools.offer import Operation, offer, shown
from triplane.session.tools.peer import ServerFailed, ServerSlow
from triplane.session.tools.processes import Recorder
from triplane.session.tools.results import MAX_RESULT, checked_result, storable, text_result
from triplane.session.tools.servers import Server

log = logging.getLogger(__name__)
_Made = TypeVar("_Made")

MAX_ARGUMENTS: Final = 256 * 1024
"""Octets of the arguments of one call."""
MAX_CALLS: Final = 10_000
"""Calls of one run; beyond, all are refused and none is told any more."""
AT_ONCE: Final = 16
"""Calls of one run at the same time; further ones wait."""
_LAST_WORDS_SECONDS: Final = 10.0
"""How long the end of a run waits for the gateway to hear what was broken off."""


class ToolHost:
    """Serves the calls of one run."""

    def __init__(
        self,
        run: int,
        rules: Rules,
        servers: Mapping[str, Server],
        teller: Teller,
        purse: Purse,
        record: Recorder,
        secrets: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run = run
        self._rules = rules
        self._servers = servers
        self._teller = teller
        self._purse = purse
        self._record = record
        self._known = KnownSecrets(secrets)
        self._now = now
        self._checks = ArgumentChecks()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._turn = asyncio.Lock()
        self._calls: set[asyncio.Task[Mapping[str, Any]]] = set()
        self._number = 0
        self._closing = False
        self.offered: Mapping[str, Operation] = offer(self._rules, self._servers)

    @property
    def materials(self) -> list[Material]:
        """What the as-run record says of the tools."""
        return [material for name in sorted(self._servers) for material in self._servers[name].materials]

    @property
    def busy(self) -> bool:
        """A call is under way: the harness waits, and is not idle."""
        return bool(self._calls)

    def definitions(self) -> list[dict[str, Any]]:
        """The operations as ``tools/list`` shows them, by name."""
        return [shown(name, self.offered[name]) for name in sorted(self.offered)]

    async def tell_offer(self) -> None:
        """Say in the journal what the run is offered, and what its Tools have beyond that."""
        names = sorted(self.offered)
        listed = sum(len(server.operations) for server in self._servers.values())
        text = f"tools: {len(names)} of {listed} operations are offered: {', '.join(names)[:4000] or 'none'}"
        await self._record(Record("decision", {"source": "host", "axis": Axis.TOOLS.value, "text": text}))

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one call and return its ``CallToolResult``. It goes on to its end, and is told, even if whoever
        asked hangs up."""
        task = asyncio.create_task(self._told(name, arguments), name=f"call {name[:60]}")
        self._calls.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Break off what is under way, and tell it."""
        self._closing = True
        calls = tuple(self._calls)
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_LAST_WORDS_SECONDS)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._checks.close()

    def _over(self, task: "asyncio.Task[Mapping[str, Any]]") -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a call of a tool could not be told: %s", error)

    async def _told(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self._number += 1
        if self._number > MAX_CALLS:
            return text_result(f"Refused: this run has made {MAX_CALLS} calls; no more are served.", failed=True)
        tool, _, operation = name.partition(SEPARATOR)
        stored, problem = await self._aside(lambda: storable(self._known.redacted_json(dict(arguments)), MAX_ARGUMENTS))
        call = Call(
            {
                "invocation": f"call-{self._run}-{self._number}",
                "tool": tool[:253],
                "operation": operation[:1024],
                "arguments": stored,
            }
        )
        began = _monotonic()
        try:
            async with self._slots:
                if problem is None:
                    ended = await self._carried_out(name, arguments, call)
                else:
                    limit = f"plain JSON of at most {MAX_ARGUMENTS} octets"
                    ended = refused(Refusal(Rule.INPUT, f"the arguments: {problem}", limit, "you: mend them"))
        except asyncio.CancelledError:
            if not self._closing:
                raise
            ended = broken_off(call)
        result: Mapping[str, Any] = await self._aside(lambda: self._known.redacted_json(ended.result))
        await self._tell(call.told, ended, result, round((_monotonic() - began) * 1000))
        return result

    async def _carried_out(self, name: str, arguments: Mapping[str, Any], call: Call) -> Ended:
        """Each step goes on, or ends the call with a refusal."""
        operation = self.offered.get(name)
        if operation is None:
            return refused(self._unknown(name))
        key = key_of(operation.tool, operation.definition.name)
        decision = self._decide(operation)
        if isinstance(decision, Refusal):
            return refused(decision)
        try:
            if (refusal := await self._fit(operation, key, arguments, look=decision.needs_leave)) is not None:
                return refused(refusal)
            leave = Leave.NOT_REQUIRED
            if decision.needs_leave:
                leave, refusal = await self._leave(operation, key, arguments, call)
                if refusal is not None:
                    return refused(refusal, leave)
                # Hours may have gone by: what was true when leave was asked for must be true now.
                if (refusal := await self._fit(operation, key, arguments, look=True)) is not None:
                    return refused(refusal, leave)
            decision = self._decide(operation)
            if isinstance(decision, Refusal):
                return refused(decision, leave)
        except ServerFailed as error:  # it was asked whether it is what it was
            keeper = f"whoever keeps Tool {operation.tool}, and a new run"
            return refused(Refusal(Rule.UNAVAILABLE, f"{key}: {error}", "a server that answers", keeper))
        self._purse.charge(operation.spec.cost_minor_units)  # nothing between: two calls cannot share the last unit
        call.made, call.leave = True, leave
        if operation.spec.egress is not EgressClass.NONE:
            await self._teller.begin_call(call.told)
        status, result = await self._made(operation, arguments)
        return Ended(status, result, leave)

    def _decide(self, operation: Operation) -> Refusal | Allowed:
        return decide(
            self._rules,
            operation.tool,
            operation.definition.name,
            cost_left=self._purse.left_of_cost(),
            now=self._now(),
        )

    def _unknown(self, name: str) -> Refusal:
        """Not offered: by which rule, where one says so."""
        tool, separator, operation = name.partition(SEPARATOR)
        listed = tool in self._servers and operation in self._servers[tool].operations
        if separator and listed and (refusal := refused_by_rules(self._rules, tool, operation)) is not None:
            return refusal
        limit = f"the {len(self.offered)} operations of tools/list, spelled exactly so"
        shown = escape_text(name[:150], lines=True)
        return Refusal(Rule.UNKNOWN, f"{shown!r} is not offered", limit, "whoever writes the Task's spec.tools")

    async def _fit(self, operation: Operation, key: str, arguments: Mapping[str, Any], *, look: bool) -> Refusal | None:
        """Arguments that fit the schema, of an operation that still is what was offered."""
        keeper = f"whoever keeps Tool {operation.tool}"
        try:
            problem = await self._checks.problem(operation.definition.input_schema, arguments)
        except CannotCheck as error:
            return Refusal(Rule.INPUT, f"{key}: {error}", "a schema that can be checked", keeper)
        if problem is not None:
            return Refusal(Rule.INPUT, f"{key}: {problem}", "the inputSchema in tools/list", "you: mend the arguments")
        if (how := await operation.server.changed(operation.definition.name, look=look)) is not None:
            limit = f"what it was when the run began ({operation.definition.digest})"
            return Refusal(Rule.CHANGED, f"{key}: {how}", limit, f"{keeper}, and a new run")
        return None

    async def _leave(
        self, operation: Operation, key: str, arguments: Mapping[str, Any], call: Call
    ) -> tuple[Leave, Refusal | None]:
        spec = operation.spec
        people = ", ".join(spec.approvers or ())
        if not call.told["arguments"] == arguments == await self._aside(lambda: clean_json(arguments)):
            refusal = Refusal(
                Rule.UNSEEN,
                f"{key}: the arguments hold a secret, or characters a reader does not see",
                "what a person can read before giving leave",
                "you: leave them out",
            )
            return Leave.NOT_ASKED, refusal
        try:
            answer = await self._teller.ask_leave(call.told)
        except InvalidInput as error:
            return Leave.NOT_ASKED, Refusal(Rule.UNSEEN, f"{key}: {error}", "what a person can read", "you")
        if answer is None:
            limit = f"an answer within {spec.approval_timeout_seconds} s"
            return Leave.TIMED_OUT, Refusal(Rule.UNANSWERED, f"{key}: nobody gave leave", limit, people)
        if not answer:
            return Leave.REJECTED, Refusal(Rule.REJECTED, f"{key}: a person said no", "a person's leave", people)
        return Leave.APPROVED, None

    async def _made(self, operation: Operation, arguments: Mapping[str, Any]) -> tuple[CallStatus, Mapping[str, Any]]:
        seconds = float(operation.spec.timeout_seconds)
        try:
            result = checked_result(await operation.server.call(operation.definition.name, arguments, seconds))
        except ServerSlow as error:
            text = f"Tool {operation.tool} is out of time: {error}. Whether it took effect is not known."
            return CallStatus.TIMED_OUT, text_result(text, failed=True)
        except ServerFailed as error:
            return CallStatus.FAILED, text_result(f"Tool {operation.tool} failed: {error}", failed=True)
        return CallStatus.FAILED if result["isError"] else CallStatus.SUCCEEDED, result

    async def _tell(self, call: Mapping[str, Any], ended: Ended, result: Any, milliseconds: int) -> None:
        """Journal and log. What the log does not take, nobody gets."""
        refusal = ended.refusal
        shown = escape_text(f"{call['tool']}/{call['operation']}"[:300], lines=True)
        text = f"tool {shown}: {ended.status.value}" + (f": {refusal.text()}" if refusal is not None else "")
        payload = {
            "source": "host",
            "kind": "tool",
            "text": text,
            "tool": shown,
            "invocation": call["invocation"],
            "status": ended.status.value,
            "approval": ended.leave.value,
            "milliseconds": milliseconds,
        }
        await self._record(Record("decision" if refusal is not None else "owner-effect", payload))
        report = {
            **call,
            "status": ended.status.value,
            "leave": ended.leave.value,
            "milliseconds": milliseconds,
            "output": (await self._aside(lambda: storable(result, 2 * MAX_RESULT)))[0],
        }
        if refusal is not None:
            report["rule"] = refusal.rule.value
            if refusal.axis is not None:
                report["axis"] = refusal.axis.value
        try:
            await self._teller.end_call(report)
        except RunEnded:
            log.warning("%s was not told: the run is over", call["invocation"])
            raise

    async def _aside(self, work: Callable[[], _Made]) -> _Made:
        """Cleaning takes seconds where there is much to clean. A thread does it, one for a run: its runner has other
        runs, whose leases must be renewed meanwhile."""
        async with self._turn:
            return await asyncio.to_thread(work)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
