"""What the webhook saw, on its way to the gateway: in the background, bounded, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triplane.admission import violations as module
from triplane.admission.violations import ViolationNotes
from triplane.api.policy import Stage
from triplane.domain.policy import KnownPolicy, PolicyDecision, PolicyRequest, decision
from triplane.errors import Unavailable

REQUEST = PolicyRequest(
    stage=Stage.ADMISSION, operation="CREATE", kind="Task", namespace="team", name="t",
    object={"metadata": {"name": "t"}, "spec": {"objective": "x"}}, user={"username": "alice", "uid": "1"},
)  # fmt: skip


def violated() -> PolicyDecision:
    spec = {"match": {"kinds": ["Task"]}, "stages": ["Admission"], "validations": [{"expression": "false"}]}
    metadata = {"namespace": "team", "name": "p", "uid": "u-p", "generation": 1}
    policy = KnownPolicy.of({"metadata": metadata, "spec": spec})
    return decision([policy], [policy.violated("validations[0]", "no")])


class Gateway:
    """Hears what is told; answers as told to."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.status = 200

    async def answer(self, request: Request) -> Response:
        self.tokens.add(request.headers["authorization"])
        if self.status == 200:
            self.heard += (await request.json())["violations"]
        return JSONResponse({}, self.status)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = Starlette(routes=[Route(module.PATH, self.answer, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_RETRY_SECONDS", (0.01,))


async def eventually(said: Any) -> None:
    async with asyncio.timeout(5):
        while not said():
            await asyncio.sleep(0.01)


async def test_it_is_told_once_with_whose_request_it_was() -> None:
    gateway = Gateway()
    async with gateway.serve() as url:
        notes = ViolationNotes(lambda: url, lambda: "secret")
        await notes.start()
        for _ in range(3):
            notes.note(violated(), REQUEST)
        await eventually(lambda: gateway.heard)
        await notes.close()
    (heard,) = gateway.heard
    assert (heard["policyUid"], heard["rule"], heard["username"]) == ("u-p", "validations[0]", "alice")
    assert heard["spec"] == {"objective": "x"}
    assert gateway.tokens == {"Bearer secret"}


async def test_a_gateway_that_is_away_is_told_later() -> None:
    gateway, found = Gateway(), [False]
    async with gateway.serve() as url:

        def address() -> str:
            if not found[0]:
                found[0] = True
                raise Unavailable("the gateway's address is not known")
            return url

        notes = ViolationNotes(address, lambda: "secret")
        await notes.start()
        gateway.status = 503
        notes.note(violated(), REQUEST)
        await eventually(lambda: gateway.tokens)
        gateway.status = 200
        await eventually(lambda: gateway.heard)
        await notes.close()


async def test_what_the_gateway_calls_wrong_does_not_stand_before_the_rest() -> None:
    gateway = Gateway()
    async with gateway.serve() as url:
        notes = ViolationNotes(lambda: url, lambda: "secret")
        await notes.start()
        gateway.status = 422
        notes.note(violated(), REQUEST)
        await eventually(lambda: notes.dropped)
        gateway.status = 200
        notes.note(violated(), replace(REQUEST, name="t2"))
        await eventually(lambda: gateway.heard)
        await notes.close()
    assert [each["name"] for each in gateway.heard] == ["t2"]


async def test_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    notes = ViolationNotes(lambda: "", lambda: "")
    for number in range(25):
        notes.note(violated(), replace(REQUEST, name=f"t{number}"))
    assert notes.dropped == 15


async def test_of_a_dry_run_nothing_is_told() -> None:
    notes = ViolationNotes(lambda: "", lambda: "")
    notes.note(violated(), replace(REQUEST, dry_run=True))
    assert not notes._waiting


async def test_an_object_without_a_digest_keeps_nobody_waiting() -> None:
    notes = ViolationNotes(lambda: "", lambda: "")
    notes.note(violated(), replace(REQUEST, object={"metadata": {"name": "t"}, "spec": {"n": 2**60}}))
    assert (notes.dropped, len(notes._waiting)) == (1, 0)
