"""A running gateway for tests: real HTTP on loopback, and hands to play runner, session host and operator."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from triplane.domain.session import Offer, Permit
from triplane.gateway.app import create_app
from triplane.gateway.config import GatewayConfig
from triplane.gateway.state import Gateway
from triplane.httpserver import Server
from triplane.wiring import GatewayBackends

OPERATOR, RUNNER = "operator-token", "runner-token"
REPORT = b"# Report\n"
REFLECTION = b'{"wentWell":["all of it"],"wentBadly":[],"lessons":[],"confidence":90}'
INPUT = b"the input"
NOW = "2026-01-31T12:00:00Z"
SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def output(name: str, path: str, media_type: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "path": f"/work/outputs/{path}", "mediaType": media_type, "schema": schema}


def order(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "role": "producer",
        "inputs": [{"name": "in", "path": "/work/inputs/in", "digest": sha256(INPUT), "type": "File"}],
        "outputs": list(outputs or (output("report", "report.md", "text/markdown"),)),
        "review": None,
        "timeoutSeconds": 60,
        "harness": {"program": "agent.py", "digest": "sha256:" + "9" * 64},
    }


@dataclass
class Run:
    """A claimed run, as its session host sees it."""

    world: "World"
    claim: dict[str, Any]

    @property
    def uid(self) -> str:
        return str(self.claim["sessionUid"])

    @property
    def number(self) -> int:
        return int(self.claim["run"])

    @property
    def token(self) -> str:
        return str(self.claim["runToken"])

    async def post(self, call: str, body: Any) -> httpx.Response:
        path = f"/v1/sessions/{self.uid}/runs/{self.number}/{call}"
        return await self.world.call("POST", path, self.token, json=body)

    async def put(self, content: bytes) -> str:
        digest = sha256(content)
        answer = await self.world.call("PUT", f"/v1/blobs/{digest}", self.token, content=content)
        assert answer.status_code in (200, 201), answer.text
        return digest

    async def start(self, **facts: Any) -> httpx.Response:
        return await self.post("start", {"facts": {"isolated": True, **facts}})

    async def record(self, sequence: int, *payloads: dict[str, Any], type: str = "message") -> httpx.Response:
        records = [{"type": type, "occurredAt": NOW, "payload": payload} for payload in payloads]
        return await self.post("records", {"sequence": sequence, "records": records})

    def report(self, **outputs: str) -> dict[str, Any]:
        return {
            "outcome": "succeeded",
            "reason": "Completed",
            "message": "done",
            "exitCode": 0,
            "outputs": [{"name": name, "digest": digest} for name, digest in outputs.items()],
            "reflection": sha256(REFLECTION),
            "usage": {"inputTokens": 1, "outputTokens": 2, "costMinorUnits": 3},
        }

    async def finish(self, **outputs: bytes) -> httpx.Response:
        """Upload everything and report success."""
        await self.put(REFLECTION)
        digests = {name: await self.put(content) for name, content in outputs.items()}
        return await self.post("finish", self.report(**digests))


@dataclass
class World:
    """The gateway's address, and its backends beneath."""

    url: str
    backends: GatewayBackends
    gateway: Gateway
    stop: Callable[[], None]
    """What a SIGTERM does."""
    client: httpx.AsyncClient
    permits: dict[str, int] = field(default_factory=dict)

    async def call(self, method: str, path: str, token: str | None = OPERATOR, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return await self.client.request(method, self.url + path, headers=headers, **options)

    async def put_in(self, namespace: str, content: bytes) -> str:
        """Store a blob as somebody of this namespace would."""
        digest = await self.backends.content.store(content)
        await self.backends.sessions.own_blob(namespace, digest)
        return digest

    async def offer(self, uid: str = "s-1", work_order: dict[str, Any] | None = None, *, permit: bool = True) -> Offer:
        made = Offer(
            session_uid=uid,
            namespace="team",
            name=f"session-{uid}",
            task_uid="t-1",
            graph_uid="g-1",
            agent_uid="a-1",
            agent_name="alice-agent",
            role="Producer",
            snapshot_digest="sha256:" + "5" * 64,
            work_order=work_order or order(),
        )
        await self.put_in("team", INPUT)
        await self.backends.sessions.offer(made)
        if permit:
            await self.permit(uid, 1)
        return made

    async def permit(self, uid: str, run: int, **run_inputs: Any) -> bool:
        sessions = self.backends.sessions
        return await sessions.permit(
            Permit(
                session_uid=uid,
                run=run,
                counter=await sessions.next_permit_counter(uid, run),
                snapshot_digest="sha256:" + "5" * 64,
                revocation_revision=await sessions.revocation_revision(),
                run_inputs=run_inputs,
            )
        )

    async def poll(self, *, instance: str = "i-1", wait: float = 0) -> httpx.Response:
        body = {"runner": "local", "instance": instance, "waitSeconds": wait}
        return await self.call("POST", "/v1/claims", RUNNER, json=body)

    async def claimed(
        self, uid: str = "s-1", work_order: dict[str, Any] | None = None, *, instance: str = "i-1"
    ) -> Run:
        await self.offer(uid, work_order)
        answer = await self.poll(instance=instance)
        assert answer.status_code == 200, answer.text
        return Run(self, answer.json())

    async def started(self, uid: str = "s-1", work_order: dict[str, Any] | None = None) -> Run:
        run = await self.claimed(uid, work_order)
        answer = await run.start()
        assert answer.status_code == 200, answer.text
        return run

    async def logged(self, uid: str = "s-1") -> list[str]:
        """Ids of the entries about a session, in order."""
        entries = await self.backends.log.query()
        return [item.entry["id"] for item in entries if item.entry["subject"]["uid"] == uid]

    async def blob(self, digest: str) -> bytes:
        return b"".join([chunk async for chunk in self.backends.content.resolve(digest)])


class QuietServer(Server):
    """Leaves the test process's signals alone."""

    @contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@asynccontextmanager
async def running(backends: GatewayBackends, folder: Path, **config: Any) -> AsyncIterator[World]:
    """Serve these backends on a free loopback port."""
    app = create_app(backends, GatewayConfig(keys=folder / "gateway_keys", **config))
    started = asyncio.Event()
    server = QuietServer(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2),
        started.set,
        app.state.gateway.stopping.set,
    )
    serving = asyncio.create_task(server.serve())
    await asyncio.wait_for(started.wait(), 10)
    port = server.servers[0].sockets[0].getsockname()[1]
    for name, token in (("operator", OPERATOR), ("runner", RUNNER)):
        await backends.accounts.put_token(name, name, hashlib.sha256(token.encode()).hexdigest())
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        try:
            yield World(f"http://127.0.0.1:{port}", backends, app.state.gateway, server.stop, client)
        finally:
            server.stop()
            await serving


def decoded(octets: str) -> bytes:
    return base64.b64decode(octets)
