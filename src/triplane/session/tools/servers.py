"""Each Tool of a run, opened: what it offers and how it is called, whatever is behind it.

Opened once, before the harness begins, and closed after it: a server lives as long as its run.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from triplane.api.authority import SecretKey
from triplane.api.meta import Material, MaterialBasis
from triplane.api.tool import BuiltinName, EgressClass, ExecTool, HttpServer, StdioServer, ToolSpec
from triplane.audit.digest import digest_of_json
from triplane.domain.tool import EXEC_OPERATION
from triplane.session.execution import SandboxFailed
from triplane.session.given import SecretValue
from triplane.session.harness.protocol import Record
from triplane.session.tools.builtin import BuiltinFailed, Builtins, definitions
from triplane.session.tools.http import Admit, HttpChannel, host_of
from triplane.session.tools.peer import START_SECONDS, About, Definition, Peer, ServerFailed, ServerSlow
from triplane.session.tools.processes import Bench, ToolProgram, bring_program, run_once
from triplane.session.tools.results import MAX_RESULT, text_result
from triplane.session.tools.stdio import StdioChannel


class Server(Protocol):
    """One opened Tool."""

    @property
    def operations(self) -> Mapping[str, Definition]:
        """What it listed when it was opened: this, and nothing later, is offered."""
        ...

    @property
    def materials(self) -> Sequence[Material]:
        """Its lines of the as-run record."""
        ...

    async def changed(self, operation: str, *, look: bool) -> str | None:
        """How the operation differs from what it was when the run began; None: it does not, as far as is known.
        ``look`` asks the server even if it did not say so. Raises ``ServerFailed``."""
        ...

    async def call(self, operation: str, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """A ``CallToolResult`` as it came. Raises ``ServerFailed``, ``ServerSlow``."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What tools are opened with."""

    bench: Bench
    builtins: Builtins
    secrets: Mapping[str, Sequence[SecretValue]]
    """By Tool: what the gateway gave out for it, within the session's authority."""
    admit: Admit


@asynccontextmanager
async def opened(name: str, spec: ToolSpec, opening: Opening) -> AsyncIterator[Server]:
    """The Tool, ready to be called. Raises ``ServerFailed`` where it cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(START_SECONDS):
                server = await _open(name, spec, opening, stack)
        except TimeoutError as error:
            raise ServerFailed(f"it was not ready within {START_SECONDS:g} s") from error
        except SandboxFailed as error:
            raise ServerFailed(str(error)) from error
        yield server


async def _open(name: str, spec: ToolSpec, opening: Opening, stack: AsyncExitStack) -> Server:
    if spec.builtin is not None:
        return _Builtin(spec.builtin, opening.builtins)
    if spec.exec_ is not None:
        program = await _program(name, spec.exec_, opening, spec.egress)
        return _Exec(name, spec, program)
    if spec.stdio is not None:
        program = await _program(name, spec.stdio, opening, spec.egress)
        return await _stdio(name, program, opening, stack)
    assert spec.http is not None  # a Tool is exactly one of the four
    return await _http(name, spec.http, opening, stack)


async def _program(name: str, declared: StdioServer | ExecTool, opening: Opening, egress: EgressClass) -> ToolProgram:
    values = {use.env: _secret(name, use, opening) for use in declared.secrets or ()}
    return await asyncio.to_thread(bring_program, opening.bench, name, declared, values, egress)


def _secret(name: str, use: SecretKey, opening: Opening) -> str:
    for given in opening.secrets.get(name, ()):
        if (given.name, given.key) == (use.name, use.key):
            return given.value
    raise ServerFailed(f"the gateway gave out no key {use.key} of Secret {use.name} for it")


async def _stdio(name: str, program: ToolProgram, opening: Opening, stack: AsyncExitStack) -> Server:
    execution, stdin = await stack.enter_async_context(program.running())

    async def say(line: str) -> None:
        await opening.bench.record(Record("message", {"source": "host", "stream": "tool", "tool": name, "text": line}))

    peer: Peer
    try:
        channel = StdioChannel(execution, stdin, say, lambda: setattr(peer, "changed", True))
    except BaseException:
        os.close(stdin)
        raise
    peer = Peer(name, channel)
    stack.push_async_callback(peer.close)
    material = Material(
        role="tool", name=_label(name, f"program {program.program.name}"), digest=program.program.digest,
        basis=MaterialBasis.CONTENT,
    )  # fmt: skip
    return await _met(name, peer, material)


async def _http(name: str, declared: HttpServer, opening: Opening, stack: AsyncExitStack) -> Server:
    token = _secret(name, declared.token, opening) if declared.token is not None else None
    peer: Peer
    channel = HttpChannel(declared.url, token, opening.admit, lambda: setattr(peer, "changed", True))
    peer = Peer(name, channel)
    stack.push_async_callback(peer.close)
    host, port = host_of(declared.url)
    material = Material(role="tool", name=_label(name, f"server {host}:{port}"), basis=MaterialBasis.DECLARED)
    return await _met(name, peer, material)


async def _met(name: str, peer: Peer, material: Material) -> Server:
    about = await peer.shake_hands()
    return _Mcp(name, peer, await peer.list(), about, material)


class _Mcp:
    """An MCP server, over whichever channel."""

    def __init__(
        self, name: str, peer: Peer, listed: Mapping[str, Definition], about: About, material: Material
    ) -> None:
        self._peer = peer
        self.operations = listed
        reported = Material(
            role="tool",
            name=_label(name, f"{about.name} {about.version}, operations"),
            digest=digest_of_json({each.name: each.digest for each in listed.values()}),
            basis=MaterialBasis.REPORTED,
        )
        self.materials = (material, reported)
        self._now: Mapping[str, Definition] = listed
        self._looking = asyncio.Lock()

    async def changed(self, operation: str, *, look: bool) -> str | None:
        async with self._looking:
            if look or self._peer.changed:
                self._now = await self._peer.list()
        known, now = self.operations[operation], self._now.get(operation)
        if now is None:
            return "its server no longer lists it"
        return None if now.digest == known.digest else f"its server defines it differently by now ({now.digest})"

    async def call(self, operation: str, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        return await self._peer.call(operation, arguments, seconds)


class _Builtin:
    """A tool of the host itself."""

    def __init__(self, name: BuiltinName, builtins: Builtins) -> None:
        self._name = name
        self._builtins = builtins
        self.operations: Mapping[str, Definition] = definitions(name)
        self.materials: Sequence[Material] = ()

    async def changed(self, operation: str, *, look: bool) -> str | None:
        return None

    async def call(self, operation: str, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        try:
            found = await asyncio.to_thread(self._builtins.call, self._name, operation, arguments)
        except BuiltinFailed as error:
            return text_result(str(error), failed=True)
        return {**text_result(json.dumps(found, ensure_ascii=False)), "structuredContent": dict(found)}


class _Exec:
    """A program run once for each call."""

    def __init__(self, name: str, spec: ToolSpec, program: ToolProgram) -> None:
        assert spec.exec_ is not None
        schema = dict(spec.exec_.input_schema or {"type": "object"})
        defined = {"name": EXEC_OPERATION, "description": spec.description or "", "inputSchema": schema}
        definition = Definition(
            EXEC_OPERATION, spec.description or "", schema, spec.title, None, digest_of_json(defined)
        )
        self.operations: Mapping[str, Definition] = {EXEC_OPERATION: definition}
        self.materials: Sequence[Material] = (
            Material(
                role="tool", name=_label(name, f"program {program.program.name}"), digest=program.program.digest,
                basis=MaterialBasis.CONTENT,
            ),
        )  # fmt: skip
        self._program = program

    async def changed(self, operation: str, *, look: bool) -> str | None:
        return None

    async def call(self, operation: str, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        line = json.dumps(dict(arguments), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            async with asyncio.timeout(seconds):
                code, output, words = await run_once(self._program, line, MAX_RESULT)
        except TimeoutError as error:
            raise ServerSlow(f"its program took longer than {seconds:g} s and was killed") from error
        except SandboxFailed as error:
            raise ServerFailed(str(error)) from error
        text = output.decode("utf-8", "replace")
        if code != 0:
            said = f"; it last wrote to standard error: {words}" if words else ""
            return text_result(f"the program ended with exit code {code}{said}\n{text}".strip(), failed=True)
        result: dict[str, Any] = dict(text_result(text))
        with contextlib.suppress(ValueError, RecursionError):
            structured = json.loads(text)
            if isinstance(structured, dict):
                result["structuredContent"] = structured
        return result


def _label(tool: str, what: str) -> str:
    """A material's name: the Tool, and what of it."""
    return f"{tool}: {what}"[:253]
