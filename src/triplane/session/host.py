"""The session host: one run, from its work order to its result.

prepare → start → stream → collect → reflect → finish. Each step either goes on or ends the run with a reason; what
happened is reported once, and the workspace is removed whatever happened.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from triplane.api.harness import ExecHarness
from triplane.domain.session import Outcome, Usage
from triplane.domain.trace import trace_id
from triplane.errors import Conflict, Forbidden, InvalidInput, TriplaneError
from triplane.failpoint import failpoint
from triplane.session.asking import ask_once_more, must_ask
from triplane.session.budget import Meter
from triplane.session.client import ClaimedRun, Gateway, RunEnded, RunGateway
from triplane.session.ending import Result, check_end, report_of
from triplane.session.execution import Execution, SandboxFailed
from triplane.session.grants import Grants, check_enforced, obtain
from triplane.session.harness.exec import Ended, TimeLimits, attend
from triplane.session.harness.protocol import Record
from triplane.session.journal import Journal
from triplane.session.launch import HostKit, cancelled, prepare, start
from triplane.session.outputs import Collected, check_outputs, collect
from triplane.session.program import Program, parse_harness
from triplane.session.refusal import RunEndsEarly, failed, refused
from triplane.session.tooling import tools_of_run
from triplane.session.workspace import Workspace, remove_tree

if TYPE_CHECKING:
    from triplane.session.tools.host import ToolHost

log = logging.getLogger(__name__)
Recorder = Callable[[Record], Awaitable[None]]

_REPORT_CANCELLED_SECONDS = 30.0
_RENEW_SECONDS = 2.0
"""A revoked run hears of it with the next renewal: it must be gone within three seconds."""


@dataclass(frozen=True, slots=True)
class Started:
    """A started program, and what it was started from."""

    harness: ExecHarness
    workspace: Workspace
    program: Program
    execution: Execution


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
        self._meter = Meter(self._order.get("budget"))
        self._secrets: tuple[str, ...] = (claim.run_token, kit.service_token() or "")
        """What must stand in nothing that is kept."""
        self._given: tuple[str, ...] = ()
        """Those of them that the harness or its tools were given."""

    async def renew(self) -> str:
        """Renew the lease three times per lease, or more often, and tell with it what was used since it was last told;
        returns why the run is over, once it is."""
        counter, told = 0, Usage()
        while True:
            await asyncio.sleep(min(self._claim.lease_seconds / 3, _RENEW_SECONDS))
            counter += 1
            usage = self._meter.usage
            try:
                reason = await self._gateway.renew(counter, usage if usage != told else None)
            except TriplaneError as error:
                return str(error)
            told = usage
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
        isolated = self._kit.isolation.sandbox is not None
        check_enforced(self._order, isolated=isolated)
        harness = parse_harness(self._order.get("harness") or {})
        self._workspace = workspace = Workspace.of_run(self._kit.sessions, self._claim.session_uid, self._claim.run)
        grants = await obtain(self._gateway, self._order, self._kit.shared, isolated=isolated)
        self._given = grants.secrets.values()
        self._secrets += self._given
        try:
            program = await prepare(self._kit, self._gateway, workspace, self._order, harness)
            ended = await self._execute(harness, workspace, program, grants)
        finally:
            grants.close()
        try:
            check_end(ended, self._order, self._last_error)
            outputs = await self._collect(workspace)
        except RunEndsEarly as end:
            return Result(
                end.outcome,
                end.reason,
                str(end),
                ended.exit_code,
                reflection=ended.heard.reflection,
            )
        return Result(
            Outcome.SUCCEEDED,
            "Completed",
            "the program ended with exit code 0",
            ended.exit_code,
            tuple(outputs),
            ended.heard.reflection,
        )

    async def _execute(self, harness: ExecHarness, workspace: Workspace, program: Program, grants: Grants) -> Ended:
        """Open its tools, start the program, report it, stream what it says; returns when no process is left."""
        journal = Journal(self._gateway, secrets=self._secrets)

        async def record(item: Record) -> None:
            if item.payload.get("stream") == "stderr":
                self._last_error = str(item.payload["text"])
            await journal.add(item)

        opening = tools_of_run(
            self._kit, self._gateway, self._order, root=workspace.root, grants=grants, meter=self._meter, record=record
        )
        async with opening as tools:
            execution = await start(self._kit, workspace, program, harness, grants)
            return await self._attended(Started(harness, workspace, program, execution), grants, tools, journal, record)

    async def _attended(
        self, started: Started, grants: Grants, tools: "ToolHost | None", journal: Journal, record: Recorder
    ) -> Ended:
        """From its start to its end; what it may reach is served meanwhile."""
        execution = started.execution

        async def send() -> None:
            failpoint("session.before_start")
            materials = [started.program.material, *self._kit.interpreter_materials]
            materials += tools.materials if tools is not None else []
            await self._gateway.start(self._kit.isolation.facts(materials) | grants.facts())
            failpoint("session.after_start")
            await journal.run()

        async def attend_and_ask() -> Ended:
            ended = await attend(execution, limits, record, self._meter)
            if not must_ask(ended):
                return ended
            again = (started.program, started.harness)
            return await ask_once_more(self._kit, started.workspace, again, self._order, ended, record)

        idle = self._order.get("idleTimeoutSeconds")
        limits = TimeLimits(
            float(self._order.get("timeoutSeconds") or 3600),
            None if idle is None else float(idle),
            lambda: tools is not None and tools.busy,
        )
        proxy = grants.proxy(execution, record)
        endpoint = grants.endpoint(execution, tools) if tools is not None else None
        attending = asyncio.create_task(attend_and_ask())
        sending = asyncio.create_task(send())
        try:
            if proxy is not None:
                await proxy.start()
            if endpoint is not None:
                await endpoint.start()
            await asyncio.wait({attending, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending  # it ends early only by an error
            ended = await attending
            if proxy is not None:
                await proxy.close()  # its last records come before the journal's end
            if tools is not None:
                await tools.close()  # and so do theirs
            await journal.close()
            await sending
        finally:
            await cancelled(attending)
            if proxy is not None:
                await proxy.close()
            if endpoint is not None:
                await endpoint.close()
            await cancelled(sending)
            await execution.end()
        return ended

    async def _collect(self, workspace: Workspace) -> list[dict[str, str]]:
        """Upload every declared output."""
        outputs: list[Collected] = await asyncio.to_thread(collect, workspace.outputs, self._order.get("outputs") or [])
        try:
            await check_outputs(outputs, self._given)
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
        body, reflection = report_of(result, self._meter.usage, self._secrets)
        if reflection is not None:
            body["reflection"] = await self._gateway.upload_reflection(reflection)
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
