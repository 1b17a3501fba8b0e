"""A real gateway over memory backends, on a loopback port, and sessions offered to it."""

import asyncio
import contextlib
import hashlib
import json
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.audit.digest import digest_of_bytes
from triplane.domain.session import EMPTY_OBJECT_DIGEST, Offer, Permit, RunView
from triplane.gateway.app import create_app
from triplane.gateway.config import GatewayConfig
from triplane.session.client import Gateway
from triplane.session.host import host_run
from triplane.session.launch import HostKit
from triplane.session.runner import RunnerConfig, prepare
from triplane.wiring import GatewayBackends

RUNNER_TOKEN = "runner-token-f3b1a6e2c9d84075"
REFLECTION = {"type": "reflection", "wentWell": ["all of it"], "wentBadly": [], "lessons": [], "confidence": 90}
REPORT = {"name": "report", "path": "/work/outputs/report.md", "mediaType": "text/markdown", "schema": None}
PRELUDE = f"""
import json, os, sys
def say(**line): print(json.dumps(line))
def reflect(): say(**{REFLECTION!r})
def leave(name="report.md", text="# Done\\n"):
    with open(os.path.join(os.environ["TRIPLANE_OUTPUTS"], name), "w") as file: file.write(text)
order = json.load(open(os.environ["TRIPLANE_WORK_ORDER"]))
"""


_KITS: list[HostKit] = []


class _Server(uvicorn.Server):
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@dataclass
class World:
    """Everything a run needs, and what became of it."""

    home: Path
    backends: GatewayBackends
    lease_seconds: float
    url: str | None = None
    port: int = 0
    _number: int = 0

    @property
    def programs(self) -> Path:
        return self.home / "programs"

    def config(self, **changes: Any) -> RunnerConfig:
        """A runner's configuration on this world."""
        values: dict[str, Any] = {
            "runner": "local",
            "slots": 4,
            "sessions": self.home / "run" / "sessions",
            "programs": self.programs,
            "allow_unisolated": False,
            "url": lambda: self.url,
            "token": lambda: RUNNER_TOKEN,
        }
        return RunnerConfig(**{**values, **changes})

    async def kit(self) -> HostKit:
        """What a runner finds on this machine; found once for all tests."""
        if not _KITS:
            _KITS.append(await prepare(self.config()))
        config = self.config()
        return replace(_KITS[0], sessions=config.sessions, programs=config.programs, service_token=config.token)

    def program(self, source: str, name: str = "agent.py", *, prelude: bool = True) -> str:
        """Approve a program; returns its name."""
        path = self.programs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((PRELUDE if prelude else "") + textwrap.dedent(source))
        return name

    async def blob(self, content: bytes) -> str:
        """Store octets as a person would."""
        digest = await self.backends.content.store(content)
        await self.backends.sessions.own_blob("default", digest)
        return digest

    async def offer(self, *, permit: bool = True, **order: Any) -> str:
        """Offer a session with this work order and permit its first run; returns its uid."""
        self._number += 1
        uid = f"00000000-0000-4000-8000-{self._number:012d}"
        work_order = {
            "version": 1,
            "role": "producer",
            "graph": {"name": "mission", "workstream": None},
            "task": {"name": "work", "objective": "do it", "definitionOfDone": None},
            "agent": {"name": "worker", "model": None},
            "capabilities": [],
            "inputs": [],
            "outputs": [REPORT],
            "review": None,
            "timeoutSeconds": 60,
            "harness": {"program": "agent.py", "interpreter": "python3", "args": [], "env": []},
            **order,
        }
        await self.backends.sessions.offer(
            Offer(
                session_uid=uid,
                namespace="default",
                name=f"session-{self._number}",
                task_uid="task-uid",
                graph_uid="graph-uid",
                agent_uid="agent-uid",
                agent_name="worker",
                role="producer",
                snapshot_digest=EMPTY_OBJECT_DIGEST,
                work_order=work_order,
            )
        )
        if permit:
            await self.permit(uid, 1)
        return uid

    async def permit(self, uid: str, run: int) -> None:
        """Permit a run."""
        revision = await self.backends.sessions.revocation_revision()
        counter = await self.backends.sessions.next_permit_counter(uid, run)
        await self.backends.sessions.permit(Permit(uid, run, counter, EMPTY_OBJECT_DIGEST, revision, seconds=10))

    async def carry_out(self, source: str | None = None, *, kit: HostKit | None = None, **order: Any) -> "Done":
        """Offer, claim and host one run of this program; returns what the gateway recorded."""
        if source is not None:
            self.program(source)
        uid = await self.offer(**order)
        gateway = Gateway(lambda: self.url, lambda: RUNNER_TOKEN)
        try:
            claim = await gateway.claim("local", "instance")
            assert claim is not None
            await host_run(kit or await self.kit(), gateway, claim)
        finally:
            await gateway.close()
        return await self.done(uid, claim.run)

    async def done(self, uid: str, run: int = 1) -> "Done":
        """What the gateway recorded of a run."""
        view = await self.backends.sessions.get(uid, records=True)
        assert view is not None
        records: list[dict[str, Any]] = []
        for number, _, digest in view.record_digests:
            if number == run:
                records += json.loads(await self.read(digest))["records"]
        found = view.runs[run - 1]
        reflection = None
        if found.result is not None and found.result.reflection is not None:
            reflection = json.loads(await self.read(found.result.reflection))
        return Done(uid, found, records, reflection)

    async def read(self, digest: str) -> bytes:
        """A blob."""
        return b"".join([chunk async for chunk in self.backends.content.resolve(digest)])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The gateway is up within; at the same port each time."""
        app = create_app(self.backends, GatewayConfig(keys=self.home / "keys", lease_seconds=self.lease_seconds))
        server = _Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, timeout_graceful_shutdown=1)
        )
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
            assert not task.done(), task
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            yield
        finally:
            app.state.gateway.stopping.set()
            server.should_exit = True
            await task


@dataclass(frozen=True)
class Done:
    """A run as recorded."""

    uid: str
    run: RunView
    records: list[dict[str, Any]]
    reflection: dict[str, Any] | None

    @property
    def ending(self) -> tuple[str, str]:
        """``(outcome, reason)``."""
        assert self.run.result is not None, self.run
        return (self.run.result.outcome.value, self.run.result.reason)

    @property
    def message(self) -> str:
        assert self.run.result is not None
        return self.run.result.message

    def said(self, stream: str) -> list[str]:
        """Lines kept of a stream."""
        return [record["payload"]["text"] for record in self.records if record["payload"].get("stream") == stream]


async def make_world(home: Path, *, lease_seconds: float = 15.0) -> World:
    """A world whose gateway is not up yet."""
    (home / "programs").mkdir(parents=True)
    shared = MemoryLog.create()
    log = MemoryEventLog(shared, writer="gateway")
    accounts = MemoryAccountStore()
    await accounts.put_token("local", "runner", hashlib.sha256(RUNNER_TOKEN.encode()).hexdigest())
    backends = GatewayBackends(
        log=log,
        checkpoints=MemoryCheckpointStore(shared),
        content=MemoryContentStore(),
        sessions=MemorySessionStore(SystemClock()),
        accounts=accounts,
        graph=MemoryGraphStore(),
    )
    return World(home, backends, lease_seconds)


def sha256(content: bytes) -> str:
    return digest_of_bytes(content)
