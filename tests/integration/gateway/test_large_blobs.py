"""Blobs of any size pass through the gateway in constant memory. ``LARGE_BLOB_OCTETS`` makes them larger than in CI."""

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SMALL = 32 << 20
LARGE = int(os.environ.get("LARGE_BLOB_OCTETS", str(192 << 20)))
GROWTH = 48 << 20
"""Octets of memory that a larger blob may cost: less than the difference of the two."""

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.integration.gateway.world import running
from triplane.adapters.clock import SystemClock
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.wiring import GatewayBackends

async def main(folder):
    shared = MemoryLog.create()
    backends = GatewayBackends(
        log=MemoryEventLog(shared), checkpoints=MemoryCheckpointStore(shared),
        content=FilesystemContentStore(folder / "cas"), sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(), graph=MemoryGraphStore(),
    )
    async with running(backends, folder) as world:
        print(world.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(Path(sys.argv[1])))
"""


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, int]]:
    """A gateway in a process of its own: its address and process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def blocks(octets: int) -> Iterator[bytes]:
    """So many octets, every MiB another."""
    for start in range(0, octets, 1 << 20):
        yield start.to_bytes(8, "big") * (1 << 17)


def peak(pid: int) -> int:
    """Octets of memory that the process has had at most."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def there_and_back(client: httpx.AsyncClient, url: str, octets: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        for block in blocks(octets):
            yield block

    wanted = hashlib.sha256()
    for block in blocks(octets):
        wanted.update(block)
    digest = f"sha256:{wanted.hexdigest()}"
    headers = {"Authorization": "Bearer operator-token"}
    answer = await client.put(f"{url}/v1/blobs/{digest}", content=body(), headers=headers)
    assert (answer.status_code, answer.json()) == (201, {"digest": digest, "size": octets})
    found = hashlib.sha256()
    async with client.stream("GET", f"{url}/v1/blobs/{digest}", headers=headers) as response:
        async for chunk in response.aiter_bytes():
            found.update(chunk)
    assert found.digest() == wanted.digest()


async def test_memory_does_not_grow_with_the_size_of_a_blob(tmp_path: Path) -> None:
    with gateway(tmp_path) as (url, pid):
        async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
            await there_and_back(client, url, SMALL)
            small = peak(pid)
            await there_and_back(client, url, LARGE)
            large = peak(pid)
    assert large - small < GROWTH, f"{small >> 20} MiB for {SMALL >> 20} MiB, {large >> 20} for {LARGE >> 20}"
