"""Tools of a run without the run: a real tool host in real sandboxes, a pretended gateway, a door on loopback."""

import importlib.metadata
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from packaging.markers import default_environment
from packaging.requirements import Requirement
from tests.integration.session.world import World, make_world

from triplane.api.tool import ToolSpec
from triplane.domain.toolcall import Rules
from triplane.session.budget import Meter
from triplane.session.given import SecretValue
from triplane.session.harness.protocol import Record
from triplane.session.launch import HostKit
from triplane.session.tools.builtin import Builtins
from triplane.session.tools.endpoint import Endpoint
from triplane.session.tools.host import ToolHost
from triplane.session.tools.processes import Bench
from triplane.session.tools.servers import Opening
from triplane.session.tools.serving import Admission, open_tools

PRETEND = Path(__file__).parent / "servers" / "pretend.py"


@dataclass
class Told:
    """The gateway's part: remembers what it is told, and answers questions as it was told to."""

    asked: list[Mapping[str, Any]] = field(default_factory=list)
    begun: list[Mapping[str, Any]] = field(default_factory=list)
    ended: list[Mapping[str, Any]] = field(default_factory=list)
    answer: bool | None = None

    async def ask_leave(self, call: Mapping[str, Any]) -> bool | None:
        self.asked.append(call)
        return self.answer

    async def begin_call(self, call: Mapping[str, Any]) -> None:
        self.begun.append(call)

    async def end_call(self, call: Mapping[str, Any]) -> None:
        self.ended.append(call)

    @property
    def last(self) -> Mapping[str, Any]:
        return self.ended[-1]


@dataclass
class Bed:
    """An open tool host and what it said."""

    host: ToolHost
    told: Told
    meter: Meter
    records: list[Record]
    url: str

    async def call(self, name: str, /, **arguments: Any) -> Mapping[str, Any]:
        return await self.host.call(name, arguments)

    async def text(self, name: str, /, **arguments: Any) -> str:
        return text_of(await self.call(name, **arguments))

    async def post(self, method: str, params: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """One JSON-RPC request over HTTP."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, **({"params": params} if params is not None else {})}
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(self.url, json=message, headers={"Accept": "application/json", **headers})


def text_of(result: Mapping[str, Any]) -> str:
    return "\n".join(item.get("text", "") for item in result["content"])


@dataclass
class ToolBench:
    """Where tools are opened in tests."""

    kit: HostKit
    home: Path
    _number: int = 0

    @property
    def programs(self) -> Path:
        assert self.kit.programs is not None
        return self.kit.programs

    @asynccontextmanager
    async def bed(
        self,
        tools: Mapping[str, Mapping[str, Any]],
        *,
        granted: tuple[str, ...] = ("**",),
        egress: tuple[str, ...] = (),
        budget: Mapping[str, int] | None = None,
        secrets: Mapping[str, tuple[SecretValue, ...]] | None = None,
        told: Told | None = None,
        inputs: tuple[Mapping[str, Any], ...] = (),
        **rules: Any,
    ) -> AsyncIterator[Bed]:
        """These Tools, open; under this authority."""
        self._number += 1
        root = self.home / f"run-{self._number}"
        (root / "inputs").mkdir(parents=True)
        told, meter, records = told or Told(), Meter(budget), []

        async def record(item: Record) -> None:
            records.append(item)

        specs = {name: ToolSpec.model_validate(spec) for name, spec in tools.items()}
        given = secrets or {}
        opening = Opening(
            bench=Bench(self.kit, root, egress, record),
            builtins=Builtins(inputs, root / "inputs"),
            secrets=given,
            admit=Admission(egress).addresses,
        )
        values = [each.value for many in given.values() for each in many]
        async with open_tools(1, Rules(granted, specs, **rules), opening, told, meter, values) as host:
            door = socket.create_server(("127.0.0.1", 0))
            door.setblocking(False)
            endpoint = Endpoint(host, door)
            await endpoint.start()
            try:
                yield Bed(host, told, meter, records, endpoint.url(door.getsockname()[1]))
            finally:
                await endpoint.close()

    def pretend(self, mode: str = "good", **spec: Any) -> dict[str, Any]:
        """A Tool that is the pretended server."""
        shutil.copyfile(PRETEND, self.programs / "pretend.py")
        return {"stdio": {"program": "pretend.py", "args": [mode]}, **spec}

    def vendored(self, distribution: str, module: str) -> str:
        """A folder of approved programs that holds this distribution and all it needs, as ``pip install --target``
        would make it, copied from what is installed here; returns its name."""
        folder = self.programs / distribution
        if folder.exists():
            return distribution
        folder.mkdir()
        for name in _closure(distribution):
            for file in importlib.metadata.distribution(name).files or ():
                if ".." in file.parts or "__pycache__" in file.parts:
                    continue
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
        (folder / "serve.py").write_text(f"import {module}\n\n{module}.main()\n")
        return distribution


def _closure(distribution: str) -> set[str]:
    """Names of the distribution and of everything it requires here."""
    found: set[str] = set()
    waiting = [(distribution, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        name = name.lower().replace("_", "-")
        if name in found and not extras:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            environments = [{**default_environment(), "extra": extra} for extra in (extras or {""})]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in environments):
                waiting.append((needed.name, frozenset(needed.extras)))
    return found


async def make_bench(home: Path) -> ToolBench:
    """A bench whose programs are its own."""
    world: World = await make_world(home / "home")
    return ToolBench(replace(await world.kit(), programs=world.programs), home)
