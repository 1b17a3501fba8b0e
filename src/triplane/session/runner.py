"""The runner: one process that hosts many sessions.

It announces itself with a fresh instance id, so that the runs of a dead predecessor are known to be lost, then asks
for work whenever a slot is free. It keeps nothing: killing it at any instant loses runs, never their record.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from triplane.errors import TriplaneError
from triplane.session.client import ClaimedRun, Gateway
from triplane.session.host import host_run
from triplane.session.interpreter import find_interpreter, measure
from triplane.session.isolation import find_isolation
from triplane.session.launch import HostKit
from triplane.session.workspace import remove_leftovers

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_REFUSED_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What the runner is told at its start. ``url`` and ``token`` are read again for every call."""

    runner: str
    slots: int
    sessions: Path
    programs: Path | None
    allow_unisolated: bool
    url: Callable[[], str | None]
    token: Callable[[], str | None]
    shared: Path | None = None


async def prepare(config: RunnerConfig) -> HostKit:
    """Find out what this machine offers: interpreter, sandbox; remove what dead runners left."""
    interpreter = find_interpreter()
    isolation, materials, removed = await asyncio.gather(
        find_isolation(interpreter),
        asyncio.to_thread(measure, interpreter),
        asyncio.to_thread(remove_leftovers, config.sessions),
    )
    if isolation.sandbox is None:
        log.warning("no sandbox here: %s", isolation.problem)
    else:
        log.info("sandbox: bubblewrap %s, %s", isolation.sandbox.version, isolation.sandbox.mode)
    if removed:
        log.info("removed what dead runners left: %s", ", ".join(removed))
    return HostKit(
        sessions=config.sessions,
        programs=config.programs,
        isolation=isolation,
        allow_unisolated=config.allow_unisolated,
        interpreter=interpreter,
        interpreter_materials=tuple(materials),
        service_token=config.token,
        shared=config.shared.resolve() if config.shared is not None else None,
    )


async def run(config: RunnerConfig) -> None:
    """Host sessions until cancelled; then kill their processes and return."""
    gateway = Gateway(config.url, config.token)
    instance = secrets.token_hex(16)
    hosted: set[asyncio.Task[None]] = set()
    try:
        kit = await prepare(config)
        for uid, number in await _until_accepted(lambda: gateway.hello(config.runner, instance)):
            log.warning("lost with an earlier runner process: session %s run %d", uid, number)
        free = asyncio.Semaphore(config.slots)
        while True:
            await free.acquire()
            claim = await _next_claim(gateway, config.runner, instance)
            log.info("%s/%s run %d claimed", claim.namespace, claim.name, claim.run)
            task = asyncio.create_task(host_run(kit, gateway, claim), name=f"session {claim.name}")
            hosted.add(task)
            task.add_done_callback(hosted.discard)
            task.add_done_callback(lambda _: free.release())
    finally:
        for task in hosted:
            task.cancel()
        await asyncio.gather(*hosted, return_exceptions=True)
        await gateway.close()


async def _next_claim(gateway: Gateway, runner: str, instance: str) -> ClaimedRun:
    while True:
        claim = await _until_accepted(lambda: gateway.claim(runner, instance))
        if claim is not None:
            return claim


async def _until_accepted(call: Callable[[], Awaitable[Answer]]) -> Answer:
    while True:
        try:
            return await call()
        except TriplaneError as error:
            log.error("the gateway refuses this runner, asking again in %g s: %s", _REFUSED_PAUSE_SECONDS, error)  # noqa: TRY400
            await asyncio.sleep(_REFUSED_PAUSE_SECONDS)
