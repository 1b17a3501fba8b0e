"""The tools of one run, from its work order: opened before the harness, served at its door, closed after it."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from triplane.api.tool import ToolSpec
from triplane.domain.egress import allowed, parse_target, refusal, worth_resolving
from triplane.domain.toolcall import Rules
from triplane.errors import TriplaneError
from triplane.session.client import RunGateway
from triplane.session.given import GivenSecrets
from triplane.session.launch import HostKit
from triplane.session.tools.builtin import Builtins
from triplane.session.tools.calls import Purse, Teller
from triplane.session.tools.host import ToolHost
from triplane.session.tools.peer import ServerFailed
from triplane.session.tools.processes import Bench, Recorder
from triplane.session.tools.servers import Opening, Server, opened


@dataclass(frozen=True, slots=True)
class ServedRun:
    """What the tools of a run are opened for."""

    kit: HostKit
    gateway: RunGateway
    root: Path
    """Its folder."""
    order: Mapping[str, Any]
    purse: Purse
    record: Recorder
    given: GivenSecrets


def rules_of(order: Mapping[str, Any]) -> Rules:
    """What the run's calls are held against, as it was frozen with its session."""
    grant = order.get("authority") or {}
    until = grant.get("expiresAt")
    return Rules(
        granted=tuple(grant.get("tools") or ()),
        tools={str(item["name"]): ToolSpec.model_validate(item["spec"]) for item in order.get("tools") or ()},
        expires_at=datetime.fromisoformat(until) if until else None,
    )


@asynccontextmanager
async def served_tools(run: ServedRun) -> AsyncIterator[ToolHost]:
    """The Tools of the work order, ready. Raises ``ToolUnavailable``. Leave it before the run is reported finished:
    what is under way is broken off, and told."""
    egress = tuple((run.order.get("authority") or {}).get("egress") or ())
    opening = Opening(
        bench=Bench(run.kit, run.root, egress, run.record),
        builtins=Builtins(run.order.get("inputs") or (), run.root / "inputs"),
        secrets=run.given.tools,
        admit=Admission(egress).addresses,
    )
    number = int(run.order["run"])
    async with open_tools(number, rules_of(run.order), opening, run.gateway, run.purse, run.given.values()) as host:
        yield host


class ToolUnavailable(TriplaneError):
    """A Tool of the run cannot be had: the run must not begin without what it was placed with."""


@asynccontextmanager
async def open_tools(
    run: int, rules: Rules, opening: Opening, teller: Teller, purse: Purse, secrets: Sequence[str] = ()
) -> "AsyncIterator[ToolHost]":
    """All Tools of the run, opened side by side. Raises ``ToolUnavailable`` naming the one that cannot be had.

    ``secrets`` are values that no result and no report may hold."""
    async with AsyncExitStack() as stack:
        stacks = {name: await stack.enter_async_context(AsyncExitStack()) for name in rules.tools}

        async def bring(name: str) -> Server:
            try:
                return await stacks[name].enter_async_context(opened(name, rules.tools[name], opening))
            except ServerFailed as error:
                raise ToolUnavailable(f"Tool {name} cannot be had: {error}") from error

        tasks = {name: asyncio.create_task(bring(name), name=f"open {name}") for name in rules.tools}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        servers = {name: task.result() for name, task in tasks.items()}
        host = ToolHost(run, rules, servers, teller, purse, opening.bench.record, secrets)
        await host.tell_offer()
        try:
            yield host
        finally:
            await host.close()


class Admission:
    """Where the session host itself may go for its run: as the harness may, by the same rules."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        # Of this run's own, made when needed: a name service that hangs holds up nobody else's files.
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="admit")

    async def addresses(self, host: str, port: int) -> list[str]:
        """Addresses of the host that the authority grants. Raises ``ServerFailed`` where it grants none."""
        try:
            target = parse_target(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except TriplaneError as error:
            raise ServerFailed(str(error)) from error
        if not worth_resolving(self._patterns, target):
            raise ServerFailed(refusal(self._patterns, target))
        if target.address is not None:
            found = [target.address]
        else:
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._threads, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                )
            except OSError as error:
                raise ServerFailed(f"{host} cannot be resolved: {error}") from error
            found = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in answers]
        ruling = allowed(self._patterns, target, found)
        if not ruling.addresses:
            raise ServerFailed(ruling.refusal)
        return [str(address) for address in ruling.addresses]
