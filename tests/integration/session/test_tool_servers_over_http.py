"""Tools that are MCP servers elsewhere: the package's own server, reached by the host under the session's egress."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from tests.integration.session.toolbench import ToolBench, make_bench

from triplane.session.given import SecretValue
from triplane.session.tools.serving import ToolUnavailable

PACKED = Response(gzip.compress(b"[" * (64 << 20)), media_type="application/json", headers={"Content-Encoding": "gzip"})


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@dataclass
class Elsewhere:
    """A served application and the headers of every request it got."""

    port: int
    seen: list[dict[str, str]] = field(default_factory=list)

    @property
    def spec(self) -> dict[str, Any]:
        return {"http": {"url": f"http://127.0.0.1:{self.port}/mcp"}}

    @property
    def egress(self) -> tuple[str, ...]:
        return (f"127.0.0.1:{self.port}",)


@contextlib.asynccontextmanager
async def served(app: Any, host: str = "127.0.0.1") -> AsyncIterator[Elsewhere]:
    door = socket.create_server((host, 0))
    place = Elsewhere(door.getsockname()[1])

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            place.seen.append({name.decode().lower(): value.decode() for name, value in scope["headers"]})
        await app(scope, receive, send)

    server = _Quiet(uvicorn.Config(watched, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[door]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield place
    finally:
        server.should_exit = True
        await task
        door.close()


@pytest.fixture
async def bench(tmp_path: Path) -> ToolBench:
    return await make_bench(tmp_path)


@pytest.fixture(params=[True, False], ids=["answering with JSON", "answering with events"])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[Elsewhere]:
    server = MCPServer("weather", version="3")

    @server.tool()
    def forecast(city: str) -> str:
        """Tells tomorrow's weather."""
        return f"Sunny in {city}."

    async with served(server.streamable_http_app(json_response=request.param)) as place:
        yield place


async def test_the_packages_own_server_is_called(bench: ToolBench, real: Elsewhere) -> None:
    async with bench.bed({"weather": real.spec}, egress=real.egress) as bed:
        assert await bed.text("weather__forecast", city="Oslo") == "Sunny in Oslo."
        declared, said = bed.host.materials
        assert (declared.name, declared.basis) == (f"weather: server 127.0.0.1:{real.port}", "declared")
        assert (said.name, said.basis) == ("weather: weather 3, operations", "reported")


async def test_its_secret_is_sent_to_it_and_to_nobody_else(bench: ToolBench, real: Elsewhere) -> None:
    spec = real.spec
    spec["http"] |= {"token": {"name": "keys", "key": "api"}}
    value = SecretValue("keys", "api", "UNUSED", "hush-hush-7", "uid", "1")
    async with bench.bed({"weather": spec}, egress=real.egress, secrets={"weather": (value,)}) as bed:
        await bed.call("weather__forecast", city="Oslo")

    assert {headers["authorization"] for headers in real.seen} == {"Bearer hush-hush-7"}
    assert "hush-hush-7" not in repr(bed.told) + repr(bed.records)


async def test_a_host_that_is_not_granted_is_not_reached(bench: ToolBench, real: Elsewhere) -> None:
    for egress in ((), ("*",), ("127.0.0.1:1",), ("localhost",)):
        with pytest.raises(ToolUnavailable, match="axis egress"):
            async with bench.bed({"weather": real.spec}, egress=egress):
                pass
    assert real.seen == []


async def test_a_redirect_leads_nowhere(bench: ToolBench, real: Elsewhere) -> None:
    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        answer = RedirectResponse(real.spec["http"]["url"], 307)
        await answer(scope, receive, send)

    async with served(elsewhere) as place:
        with pytest.raises(ToolUnavailable, match="HTTP 307"):
            async with bench.bed({"weather": place.spec}, egress=place.egress):
                pass
    assert real.seen == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(Response("no", 503), "HTTP 503", id="an error"),
        pytest.param(Response("<html>", media_type="text/html"), "neither JSON nor", id="a web page"),
        pytest.param(Response("{", media_type="application/json"), "broke the protocol", id="half an object"),
        pytest.param(Response(b"x" * (5 << 20), media_type="application/json"), "more than", id="too much"),
        pytest.param(Response(b"x" * (9 << 20), media_type="text/event-stream"), "more than", id="an endless event"),
        pytest.param(PACKED, "broke the protocol: not JSON", id="kilobytes that unpack to much more"),
        pytest.param(Response(status_code=202), "without an answer", id="nothing"),
    ],
)
async def test_what_is_no_mcp_server_is_not_used(bench: ToolBench, answer: Response, problem: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()
        await answer(scope, receive, send)

    async with served(app) as place:
        with pytest.raises(ToolUnavailable, match=problem):
            async with bench.bed({"weather": place.spec}, egress=place.egress):
                pass


async def test_a_tools_process_reaches_what_the_session_may_and_no_more(bench: ToolBench) -> None:
    """The registry's fetch server, which follows its environment to the session's proxy (127.0.0.1 is its own)."""
    program = bench.vendored("mcp-server-fetch", "mcp_server_fetch")
    spec = {
        "stdio": {"program": program, "entrypoint": "serve.py", "args": ["--ignore-robots-txt", "--allow-private-ips"]},
        "egress": "External",
    }

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request in the clear is let through")

    async with served(refusing, "127.0.0.2") as place:
        url = f"https://127.0.0.2:{place.port}/page"
        async with bench.bed({"fetch": spec}) as bed:
            assert (await bed.call("fetch__fetch", url=url))["isError"]
            assert not [record for record in bed.records if record.payload.get("axis") == "egress"]
        async with bench.bed({"fetch": {**spec, "egress": "None"}}, egress=(f"127.0.0.2:{place.port}",)) as bed:
            assert (await bed.call("fetch__fetch", url=url))["isError"], "its class says that nothing leaves"
            assert not [record for record in bed.records if record.payload.get("axis") == "egress"]
        async with bench.bed({"fetch": spec}, egress=(f"127.0.0.2:{place.port}",)) as bed:
            assert (await bed.call("fetch__fetch", url=url))["isError"], "it speaks no TLS"
            assert (await bed.call("fetch__fetch", url="https://127.0.0.2:1/"))["isError"]
            ruled = [record.payload for record in bed.records if record.payload.get("axis") == "egress"]
            assert [(each["target"], each["verdict"]) for each in ruled] == [
                (f"127.0.0.2:{place.port}", "allowed"),
                ("127.0.0.2:1", "refused"),
            ]
