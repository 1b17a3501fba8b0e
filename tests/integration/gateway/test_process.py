"""The gateway as a process on real Postgres and a real folder: the main path, restarts, outages, signals."""

import asyncio
import hashlib
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest
from tests.conftest import Database, PostgresServer, new_database
from tests.integration.gateway.world import OPERATOR, REPORT, RUNNER, Run, World, sha256

from triplane.errors import InvalidInput
from triplane.gateway.endpoint import listening_socket, loopback_address
from triplane.gateway.tokens import rotate
from triplane.wiring import GatewayBackends, gateway_url, open_gateway


@asynccontextmanager
async def process(database: Database, home: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m triplane.gateway`` with this home and database; killed at the end if it still runs."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "triplane.gateway",
        env={
            **keep,
            "TRIPLANE_HOME": str(home),
            "TRIPLANE_DATABASE_NAME": database.name,
            **variables,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.communicate()


async def ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            try:
                if (await client.get(f"{url}/readyz", timeout=10)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("the gateway did not become ready")


async def address(home: Path) -> str:
    path = home / "run" / "endpoints.json"
    for _ in range(300):
        if path.exists() and "gateway" in (found := orjson.loads(path.read_bytes())):
            return str(found["gateway"])
        await asyncio.sleep(0.1)
    raise AssertionError("no address was announced")


@asynccontextmanager
async def seen_from_outside(database: Database, url: str) -> AsyncIterator[World]:
    """The stores beside a running gateway, as the operator would have them."""
    backends: GatewayBackends = await open_gateway(database.settings())
    try:
        for name, token in (("operator", OPERATOR), ("runner", RUNNER)):
            await backends.accounts.put_token(name, name, hashlib.sha256(token.encode()).hexdigest())
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            yield World(url, backends, None, None, client)  # type: ignore[arg-type]  # those are in the process
    finally:
        await backends.close()


@pytest.fixture
def home(own_postgres: PostgresServer) -> Path:
    return own_postgres.home


async def test_the_main_path_survives_a_restart_of_gateway_and_postgres(
    own_postgres: PostgresServer, home: Path
) -> None:
    database = new_database(own_postgres)
    async with seen_from_outside(database, "") as outside:
        async with process(database, home) as gateway:
            url = await address(home)
            await ready(url)
            world = replace(outside, url=url)
            polling = asyncio.create_task(world.poll(wait=20))
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            await world.offer()
            run = Run(world, (await polling).json())
            assert time.monotonic() - begun < 2.0
            assert (await run.start()).status_code == 200
            assert (await run.record(1, {"text": "before"})).status_code == 200
            gateway.send_signal(signal.SIGKILL)
            await gateway.wait()
        async with process(database, home) as gateway:
            rotate(home / "secrets" / "gateway_keys")
            await ready(url)
            assert gateway_url(database.settings()) == url, "a restarted gateway comes back where it was"
            again = await run.record(1, {"text": "before"})
            assert again.status_code == 200
            assert (await run.record(2, {"text": "after"})).status_code == 200
            own_postgres.embedded.stop()
            down = await run.post("renew", {"counter": 5})
            assert (down.status_code, down.headers["retry-after"]) == (503, "1")
            assert (await world.call("GET", "/healthz", None)).status_code == 200
            assert (await world.call("GET", "/readyz", None)).status_code == 503
            own_postgres.embedded.start()
            await ready(url)
            assert (await run.post("renew", {"counter": 6})).json() == {"revoked": None}
            assert (await run.finish(report=REPORT)).json()["outcome"] == "succeeded"
            begun = time.monotonic()
            gateway.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(gateway.wait(), 10) == 0
            assert time.monotonic() - begun < 4
        assert await world.logged() == [
            "run.claimed/s-1/1",
            "run.started/s-1/1",
            "run.recorded/s-1/1/1",
            "run.recorded/s-1/1/2",
            "run.finished/s-1/1",
        ]
        assert (await world.backends.log.verify_chain()).ok
    digits = sha256(REPORT).removeprefix("sha256:")
    assert (home / "cas" / "blobs" / "sha256" / digits[:2] / digits[2:4] / digits).read_bytes() == REPORT
    for path in (home / "secrets" / "install_secret", *(home / "secrets" / "gateway_keys").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_gateway_started_before_postgres_waits_for_it(own_postgres: PostgresServer, home: Path) -> None:
    database = new_database(own_postgres)
    own_postgres.embedded.stop()
    async with process(database, home) as gateway:
        await asyncio.sleep(2)
        assert gateway.returncode is None
        assert not (home / "run" / "endpoints.json").exists()
        own_postgres.embedded.start()
        await ready(await address(home))
        gateway.send_signal(signal.SIGTERM)
        _, logs = await gateway.communicate()
    lines = [orjson.loads(line) for line in logs.splitlines()]
    assert [line["event"] for line in lines[-2:]] == ["the gateway serves", "the gateway has stopped"]


@pytest.mark.parametrize(
    "url",
    ["http://0.0.0.0:8080", "http://192.168.1.7:8080", "http://example.com:8080", "https://127.0.0.1:8080"],
)
async def test_plain_http_is_refused_on_any_other_address(url: str, database: Database) -> None:
    with pytest.raises(InvalidInput, match="loopback only"):
        loopback_address(url)
    with pytest.raises(InvalidInput):
        listening_socket(database.settings(gateway_url=url))
