"""The session host: one run, from its work order to its result.

prepare → start → stream → collect → reflect → finish. Each step either goes on or ends the run with a reason; what
happened is reported once, and the workspace is removed whatever happened.
"""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass, field

import structlog

from triplane.api.harness import ExecHarness
from triplane.domain.session import Outcome, Usage
from triplane.domain.trace import trace_id
from triplane.errors import Conflict, Forbidden, InvalidInput, TriplaneError
from triplane.failpoint import failpoint
from triplane.session.client import ClaimedRun, Gateway, RunEnded, RunGateway
from triplane.session.execution import SandboxFailed
from triplane.session.harness.exec import Ended, Overtime, TimeLimits, attend
from triplane.session.harness.protocol import Record, Reflection
from triplane.session.journal import Journal
from triplane.session.launch import HostKit, cancelled, prepare, start
from triplane.session.outputs import Collected, collect
from triplane.session.program import Program, parse_harness
from triplane.session.refusal import RunEndsEarly, failed, refused
from triplane.session.workspace import Workspace, remove_tree

log = logging.getLogger(__name__)

_REPORT_CANCELLED_SECONDS = 30.0
_RENEW_SECONDS = 2.0
"""A revoked run hears of it with the next renewal: it must be gone within three seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """How the run ended, before the gateway has checked it."""

    outcome: Outcome
    reason: str
    message: str
    exit_code: int | None = None
    outputs: tuple[dict[str, str], ...] = ()
    reflection: Reflection | None = None
    usage: Usage = field(default_factory=Usage)


async def host_run(kit: HostKit, gateway: Gateway, claim: ClaimedRun) -> None:
    """Carry out one claimed run and report it. Never raises for what happens in a run.

    When the run is revoked or lost its processes are killed at once. When cancelled (the runner stops), they are
    killed too and nothing is reported: the run is found lost.
    """
    # The tasks below inherit it: every line of this run can be joined with the operator's and the gateway's.
    structlog.contextvars.bind_contextvars(trace_id=trace_id(claim.task_uid), session=claim.session_uid, run=claim.run)
    host = _SessionHost(kit, gateway.of_run(claim), claim)
    renewal = asyncio.create_task(host.renew(), name=f"renew {claim.name}")
    work = asyncio.create_task(host.carry_out(), name=f"run {claim.name}")
    try:
        await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            reason = renewal.result()
            log.warning("%s run %d is no longer ours: %s", claim.name, claim.run, reason)
            await cancelled(work)
            await host.report_cancelled(reason)
    finally:
        await cancelled(work)
        await cancelled(renewal)
        await asyncio.shield(asyncio.to_thread(host.clean_up))
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("%s run %d: the session host failed", claim.name, claim.run, exc_info=error)


class _SessionHost:
    """The steps of one run."""

    def __init__(self, kit: HostKit, gateway: RunGateway, claim: ClaimedRun) -> None:
        self._kit = kit
        self._gateway = gateway
        self._claim = claim
        self._order = claim.work_order
        self._workspace: Workspace | None = None
        self._last_error = ""

    async def renew(self) -> str:
        """Renew the lease three times per lease, or more often; returns why the run is over, once it is."""
        counter = 0
        while True:
            await asyncio.sleep(min(self._claim.lease_seconds / 3, _RENEW_SECONDS))
            counter += 1
            try:
                reason = await self._gateway.renew(counter)
            except TriplaneError as error:
                return str(error)
            if reason is not None:
                return reason

    async def carry_out(self) -> None:
        """Run it and report the result."""
        failpoint("session.claimed")
        try:
            await self._report(await self._result())
        except (RunEnded, Forbidden) as error:
            log.warning("%s run %d: %s", self._claim.name, self._claim.run, error)

    async def report_cancelled(self, reason: str) -> None:
        """Tell that it was stopped. Usually the run is closed by now, and the gateway says so."""
        message = f"the run was stopped: {reason}"
        with contextlib.suppress(TriplaneError, TimeoutError):
            async with asyncio.timeout(_REPORT_CANCELLED_SECONDS):
                await self._report(Result(Outcome.CANCELLED, "Revoked", message))

    def clean_up(self) -> None:
        """Remove the workspace. Blocking."""
        if self._workspace is not None:
            try:
                remove_tree(self._workspace.root)
            except FileNotFoundError:
                return  # refused before it was made
            except OSError as error:
                log.warning("%s stays until the runner starts again: %s", self._workspace.root, error)

    async def _result(self) -> Result:
        try:
            return await self._run()
        except RunEndsEarly as end:
            return Result(end.outcome, end.reason, str(end), end.exit_code)
        except (RunEnded, Forbidden):
            raise
        except SandboxFailed as error:
            return Result(Outcome.REFUSED, "SandboxFailed", str(error))
        except Exception as error:  # a bug here must end the run with a reason, not leave it to its lease
            log.exception("%s run %d failed in its host", self._claim.name, self._claim.run)
            return Result(Outcome.FAILED, "HostFailed", f"the session host failed: {error}")

    async def _run(self) -> Result:
        if self._kit.isolation.sandbox is None and not self._kit.allow_unisolated:
            raise refused(
                "NoSandbox",
                f"this runner cannot isolate sessions ({self._kit.isolation.problem}): make bubblewrap work there, or "
                "let its owner set TRIPLANE_ALLOW_UNISOLATED=true and accept sessions with Isolated=False",
            )
        harness = parse_harness(self._order.get("harness") or {})
        self._workspace = workspace = Workspace.of_run(self._kit.sessions, self._claim.session_uid, self._claim.run)
        program = await prepare(self._kit, self._gateway, workspace, self._order, harness)
        ended = await self._execute(harness, workspace, program)
        try:
            self._check_end(ended)
            outputs = await self._collect(workspace)
        except RunEndsEarly as end:
            return Result(
                end.outcome,
                end.reason,
                str(end),
                ended.exit_code,
                reflection=ended.heard.reflection,
                usage=ended.heard.usage,
            )
        return Result(
            Outcome.SUCCEEDED,
            "Completed",
            "the program ended with exit code 0",
            ended.exit_code,
            tuple(outputs),
            ended.heard.reflection,
            ended.heard.usage,
        )

    async def _execute(self, harness: ExecHarness, workspace: Workspace, program: Program) -> Ended:
        """Start the program, report it, stream what it says; returns when no process of it is left."""
        execution = await start(self._kit, workspace, program, harness)
        journal = Journal(self._gateway, secrets=(self._claim.run_token, self._kit.service_token() or ""))

        async def record(item: Record) -> None:
            if item.payload.get("stream") == "stderr":
                self._last_error = str(item.payload["text"])
            await journal.add(item)

        async def send() -> None:
            failpoint("session.before_start")
            await self._gateway.start(self._kit.isolation.facts([program.material, *self._kit.interpreter_materials]))
            failpoint("session.after_start")
            await journal.run()

        idle = self._order.get("idleTimeoutSeconds")
        limits = TimeLimits(float(self._order.get("timeoutSeconds") or 3600), None if idle is None else float(idle))
        attending = asyncio.create_task(attend(execution, limits, record))
        sending = asyncio.create_task(send())
        try:
            await asyncio.wait({attending, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending  # it ends early only by an error
            ended = await attending
            await journal.close()
            await sending
        finally:
            await cancelled(attending)
            await cancelled(sending)
            await execution.end()
        return ended

    def _check_end(self, ended: Ended) -> None:
        """Raise unless the program ended well and left a reflection."""
        code = ended.exit_code
        if ended.overtime is Overtime.IDLE:
            raise RunEndsEarly(
                Outcome.TIMED_OUT,
                "IdleTimeout",
                f"the program wrote nothing to standard output for {self._order.get('idleTimeoutSeconds')} s; all of "
                "its processes were killed. Raise idleTimeoutSeconds, or let it report progress",
                exit_code=code,
            )
        if ended.overtime is Overtime.WHOLE:
            raise RunEndsEarly(
                Outcome.TIMED_OUT,
                "TimedOut",
                f"the run took longer than its {self._order.get('timeoutSeconds') or 3600} s; all of its processes "
                "were killed. Raise timeoutSeconds, or make the work smaller",
                exit_code=code,
            )
        if code != 0:
            signal = f" (signal {code - 128})" if 128 < code < 193 else ""
            said = f"; it last wrote to standard error: {self._last_error[:500]}" if self._last_error else ""
            raise failed("HarnessFailed", f"the program ended with exit code {code}{signal}{said}", exit_code=code)
        if ended.heard.reflection is None:
            raise failed(
                "NoReflection",
                "the program ended well but did not reflect: it must print a reflection line "
                "(docs/reference/exec-protocol.md)",
                exit_code=code,
            )

    async def _collect(self, workspace: Workspace) -> list[dict[str, str]]:
        """Upload every declared output."""
        outputs: list[Collected] = await asyncio.to_thread(collect, workspace.outputs, self._order.get("outputs") or [])
        try:
            for output in outputs:
                try:
                    failpoint("session.before_upload")
                    await self._gateway.upload(output)
                except (RunEnded, Forbidden):
                    raise
                except TriplaneError as error:
                    raise failed("OutputRefused", f"output {output.name} was not stored: {error}") from error
            return [output.wire() for output in outputs]
        finally:
            for output in outputs:
                output.close()

    async def _report(self, result: Result) -> None:
        """Store the reflection and finish the run. The host reflects on failures, never on a success."""
        reflection = result.reflection
        if reflection is None and result.outcome is not Outcome.SUCCEEDED:
            reflection = Reflection((), (result.message[:2000],), source="host")
        digest = None
        if reflection is not None:
            octets = json.dumps(reflection.wire(), ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
            digest = await self._gateway.upload_reflection(octets)
        body = {
            "outcome": result.outcome.value,
            "reason": result.reason,
            "message": result.message,
            "exitCode": result.exit_code,
            "outputs": list(result.outputs),
            "reflection": digest,
            "usage": {
                "inputTokens": result.usage.input_tokens,
                "outputTokens": result.usage.output_tokens,
                "costMinorUnits": result.usage.cost_minor_units,
            },
        }
        failpoint("session.before_finish")
        try:
            recorded = await self._gateway.finish(body)
        except InvalidInput as error:
            message = f"the gateway refused the report of this run: {error}"
            recorded = await self._gateway.finish(
                body | {"outcome": "failed", "reason": "ReportRefused", "message": message[:1000], "outputs": []}
            )
        except Conflict as error:
            raise RunEnded(str(error)) from error
        failpoint("session.after_finish")
        log.info("%s run %d: %s", self._claim.name, self._claim.run, recorded)
