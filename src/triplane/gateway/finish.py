"""Judging a finished run: gather what was uploaded, then decide purely (``triplane.domain.runresult``)."""

import asyncio

import orjson

from triplane.domain.reflection import reflection_problem
from triplane.domain.runorder import order_of_run
from triplane.domain.runresult import (
    DeclaredOutput,
    ReportedRun,
    Uploaded,
    check_reported,
    decide_result,
    declared_outputs,
)
from triplane.domain.session import Outcome, RunResult, RunView, SessionView
from triplane.errors import BlobMissing
from triplane.gateway.bodies import FinishBody
from triplane.gateway.contracts import ContractChecks
from triplane.gateway.state import Gateway
from triplane.ports import ContentStore

_REFLECTION_LIMIT = 256 * 1024


async def judge(gateway: Gateway, view: SessionView, run: RunView, body: FinishBody) -> RunResult:
    """The result to record for this report. The same report on the same blobs gives the same result.

    Raises ``InvalidInput`` for outputs that the work order does not ask for.
    """
    order = order_of_run(view.offer, run.run, run.run_inputs)
    declared = declared_outputs(order)
    check_reported(declared, [(item.name, item.path, item.media_type) for item in body.outputs])
    reported = ReportedRun(
        outcome=body.outcome,
        reason=body.reason,
        message=body.message,
        outputs=tuple((item.name, item.digest) for item in body.outputs),
        reflection=body.reflection,
        usage=body.usage.usage(),
        exit_code=body.exit_code,
    )
    content = gateway.backends.content
    mine = await _uploaded_here(gateway, view.offer.namespace, reported)
    async with ContractChecks(content, gateway.config.contract_seconds, gateway.workers) as checks:
        uploaded = await _uploads(content, checks, declared, reported, mine)
    return decide_result(reported, declared, uploaded, await _reflection(content, reported.reflection, mine))


async def _uploaded_here(gateway: Gateway, namespace: str, reported: ReportedRun) -> frozenset[str]:
    """The digests that were put in the session's namespace; any other is not so much as looked at."""
    named = {digest for _, digest in reported.outputs} | ({reported.reflection} - {None})
    sessions = gateway.backends.sessions
    return frozenset([digest for digest in named if digest and await sessions.owns_blob(namespace, digest)])


async def _uploads(
    content: ContentStore,
    checks: ContractChecks,
    declared: dict[str, DeclaredOutput],
    reported: ReportedRun,
    mine: frozenset[str],
) -> dict[str, Uploaded]:
    """Each reported output that is there. Contracts matter only to a claimed success."""
    found: dict[str, Uploaded] = {}
    for name, digest in reported.outputs:
        if digest not in mine:
            continue
        try:
            if reported.outcome is Outcome.SUCCEEDED:
                found[name] = await checks.check(declared[name], digest)
            else:
                found[name] = Uploaded(await content.size(digest))
        except BlobMissing:
            continue
    return found


async def _reflection(content: ContentStore, digest: str | None, mine: frozenset[str]) -> str | None:
    """Why there is no usable reflection; None if there is one."""
    if digest is None:
        return "none was given"
    if digest not in mine:
        return f"{digest} was not uploaded"
    try:
        if await content.size(digest) > _REFLECTION_LIMIT:
            return f"it has more than {_REFLECTION_LIMIT} octets"
        octets = b"".join([chunk async for chunk in content.resolve(digest)])
        return reflection_problem(await asyncio.to_thread(orjson.loads, octets))
    except BlobMissing:
        return f"{digest} was not uploaded"
    except orjson.JSONDecodeError:
        return f"{digest} is not JSON"
