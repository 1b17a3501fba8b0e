"""Doors: opened inside the sandbox, heard by the host, and by nobody else."""

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.world import World

from triplane.session.execution import Execution, start_isolated, start_unisolated
from triplane.session.isolation import find_isolation
from triplane.session.launch import HostKit
from triplane.session.listeners import PORTS, NoListener, door_pair, open_loopback, receive
from triplane.session.sandbox import Mode, Sandbox

ASK = """
import os, socket, sys
for port in map(int, sys.argv[1:]):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
        door.sendall(b"hello on %d\\n" % port)
        print(door.makefile().readline(), end="", flush=True)
print(sorted(os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
"""


async def _answer(execution: Execution) -> list[str]:
    """Serve every door with its own name; what the program printed."""
    servers = []
    for name, door in execution.listeners.items():

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name) -> None:
            heard = await reader.readline()
            writer.write(name.encode() + b" heard " + heard)
            await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(serve, sock=door))
    try:
        async with asyncio.timeout(20):
            said, error = await asyncio.gather(execution.stdout.read(), execution.stderr.read())
            assert await execution.wait() == 0, error
    finally:
        for server in servers:
            server.close()
        await execution.end()
    return said.decode().splitlines()


def _sandbox(kit: HostKit) -> Sandbox:
    assert kit.isolation.sandbox is not None
    return kit.isolation.sandbox


def _command(kit: HostKit, *ports: int) -> list[str]:
    return [str(kit.interpreter.executable), "-I", "-S", "-c", ASK, *map(str, ports)]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: f"a harness that is nobody by being {mode.value}")
async def test_the_host_hears_the_harness_on_each_door(world: World, mode: Mode) -> None:
    if mode is Mode.DROPPED and os.geteuid() != 0:
        return  # the way of root alone; the ordinary user's is the other
    kit = await world.kit()
    sandbox = replace(_sandbox(kit), mode=mode)
    command = _command(kit, PORTS["proxy"], PORTS["mcp"])
    execution = await start_isolated(sandbox, command, mounts=[], env={}, listeners=("proxy", "mcp"))
    ports = {name: door.getsockname()[1] for name, door in execution.listeners.items()}
    said = await _answer(execution)

    assert ports == {"proxy": 3128, "mcp": 3129}
    assert said[:2] == ["proxy heard hello on 3128", "mcp heard hello on 3129"]
    assert said[2] == "['0', '1', '2'] 4", "the harness itself holds no descriptor of a door (one is the listing's)"


async def test_a_door_is_of_the_sandbox_s_network_alone(world: World) -> None:
    """Two sandboxes have the same ports, the machine has none of them."""
    kit = await world.kit()
    wait = [str(kit.interpreter.executable), "-c", "import time; time.sleep(60)"]
    first = await start_isolated(_sandbox(kit), wait, mounts=[], env={}, listeners=("proxy",))
    try:
        second = await start_isolated(_sandbox(kit), wait, mounts=[], env={}, listeners=("proxy",))
        await second.end()
        with socket.socket() as here, pytest.raises(ConnectionRefusedError):
            here.connect(("127.0.0.1", PORTS["proxy"]))
    finally:
        await first.end()
    assert first.listeners["proxy"].fileno() == -1, "closed with the run"


async def test_no_door_is_opened_that_was_not_asked_for(world: World) -> None:
    kit = await world.kit()
    execution = await start_isolated(_sandbox(kit), _command(kit, 3128), mounts=[], env={})
    assert execution.listeners == {}
    error = await execution.stderr.read()
    await execution.end()
    assert b"ConnectionRefusedError" in error


async def test_without_a_sandbox_free_loopback_ports_are_used(world: World, tmp_path: Path) -> None:
    kit = await world.kit()
    opened = open_loopback(("proxy", "mcp"))
    ports = [door.getsockname()[1] for door in opened.values()]
    command = _command(kit, *ports)
    execution = await start_unisolated(kit.interpreter, command, folder=tmp_path, env={}, listeners=opened)
    said = await _answer(execution)
    assert said[:2] == [f"proxy heard hello on {ports[0]}", f"mcp heard hello on {ports[1]}"]


async def test_too_few_sockets_are_an_error_and_leak_nothing() -> None:
    ours, theirs = door_pair(("proxy", "mcp"))
    assert ours is not None
    assert theirs is not None
    before = len(os.listdir("/proc/self/fd"))
    with ours, theirs, socket.socket() as one:
        socket.send_fds(theirs, [b"doors"], [one.fileno()])
        with pytest.raises(NoListener, match="1 listening sockets instead of 2"):
            receive(("proxy", "mcp"), ours)
    assert len(os.listdir("/proc/self/fd")) == before - 2
    pair = socket.socketpair()
    with pair[0], pair[1], pytest.raises(NoListener, match="no listening sockets"):
        receive(("proxy",), pair[0])


async def test_the_probe_of_the_sandbox_still_holds(world: World) -> None:
    kit = await world.kit()
    assert (await find_isolation(kit.interpreter)).sandbox is not None


def test_the_same_as_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        return  # the tests above were just that
    done = pytest_as_ordinary_user("tests/integration/session/test_listeners.py", "-k", "not ordinary_user")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
