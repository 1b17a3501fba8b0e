"""Isolation probes: each first succeeds outside the sandbox, then is refused inside it.

The same probe program is run both ways, inside by a real session host for a real gateway. As root the whole file is
run once more as an ordinary user.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.world import World, make_world, sha256

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.session.sandbox import Mode

pytestmark = pytest.mark.attacks
PROBE = Path(__file__).with_name("probe.py")
_ELSEWHERE = ("shared memory of others", "a file in the home folder")
GREETING = b"hello from the other side\n"


@dataclass(frozen=True)
class Targets:
    """What an agent must not reach, made real."""

    world: World
    probes: list[list[Any]]


@pytest.fixture
async def targets() -> AsyncIterator[Targets]:
    home = Path(tempfile.mkdtemp(prefix="tri-attack-"))
    servers = AsyncExitStack()
    victim = None
    try:
        world = await make_world(home / "home")
        (world.programs / "probe.py").write_bytes(PROBE.read_bytes())
        async with world.serving():
            secrets = await _secrets(world)
            servers.callback(lambda: [secrets[name].unlink() for name in _ELSEWHERE])
            probes = _files(secrets)
            probes += await _servers(home, servers)
            probes += [["the gateway's port", "http", ["127.0.0.1", world.port]]]
            word = f"SECRET_{uuid.uuid4().hex}"
            victim = await asyncio.create_subprocess_exec("/bin/sleep", "600", env={word: "value"})
            probes += [
                ["environment of our processes", "environ_of_others", word],
                ["another process by number", "signal_process", victim.pid],
                ["another process's memory map", "memory_of", victim.pid],
                ["another process's view of the disk", "root_of", victim.pid],
                ["the kernel's keyrings", "keyring", None],
                ["a user namespace to be root in", "new_user_namespace", None],
            ]
            yield Targets(world, probes)
    finally:
        if victim is not None:
            victim.kill()
            await victim.wait()
        await servers.aclose()
        shutil.rmtree(home, ignore_errors=True)


async def test_every_probe_succeeds_outside_and_is_refused_inside(targets: Targets) -> None:
    outside = await _outside(targets)
    assert [name for name, result in outside.items() if not result.startswith("reached: ")] == [], outside

    digest = await targets.world.blob(json.dumps(targets.probes).encode())
    done = await targets.world.carry_out(
        harness={"program": "probe.py", "interpreter": "python3", "args": ["/work/inputs/probes"], "env": []},
        inputs=[{"name": "probes", "path": "/work/inputs/probes", "digest": digest, "type": "File"}],
    )
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.facts["isolated"] is True
    assert done.run.result is not None
    inside = json.loads(await targets.world.read(done.run.result.outputs[0].digest))
    assert set(inside) == set(outside)
    assert {name: result for name, result in inside.items() if result.startswith("reached: ")} == {}


async def test_nothing_but_the_interpreter_its_libraries_and_the_workspace_is_in_sight(targets: Targets) -> None:
    targets.world.program(
        """
        seen = []
        interpreter = tuple(sys.argv[1:])
        for top, folders, files in os.walk("/", onerror=lambda error: None):
            if top in ("/proc", "/dev", "/usr", "/lib", "/lib64", "/bin", "/sbin") or top.startswith(interpreter):
                folders.clear(); continue
            seen += [os.path.join(top, name) for name in files]
        print(json.dumps(seen))
        print(json.dumps(sorted(os.listdir("/dev"))))
        print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups()]))
        print(json.dumps([line for line in open("/proc/self/status") if line[:3] in ("Cap", "NoN", "Sec")]))
        print(json.dumps([name for name in os.listdir("/proc") if name.isdigit()]))
        print(open("/proc/net/dev").read().count(":"))
        print(json.dumps(os.listdir("/proc/self/fd")))
        leave(); reflect()
        """
    )
    prefixes = [str(path) for path in (await targets.world.kit()).interpreter.mounts]
    done = await targets.world.carry_out(
        harness={"program": "agent.py", "interpreter": "python3", "args": prefixes, "env": []}
    )
    seen, devices, ids, status, processes, networks, descriptors = done.said("stdout")

    strangers = [path for path in json.loads(seen) if path not in prefixes]
    assert sorted(path for path in strangers if not path.startswith("/etc/alternatives/")) == [
        *("/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/passwd"),
        *("/work/order.json", "/work/program"),
    ]
    assert set(json.loads(devices)) <= {
        *("core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"),
        *("urandom", "zero", "console"),
    }
    assert json.loads(ids)[:2] == [[65534] * 3, [65534] * 3]
    fields = dict(line.split() for line in json.loads(status))
    for name in ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"):
        assert int(fields[name], 16) == 0, fields
    assert fields["NoNewPrivs:"] == "1"
    assert fields["Seccomp:"] == "2"
    assert len(json.loads(processes)) <= 2
    assert networks == "1", "the loopback interface alone"
    assert set(json.loads(descriptors)) == {"0", "1", "2", "3"}, "3 is the listing itself"


async def test_only_outputs_and_scratch_can_be_written(targets: Targets) -> None:
    targets.world.program(
        """
        import sysconfig
        for folder in ("/", "/usr", "/usr/lib", "/etc", "/work", "/work/inputs", "/dev", "/proc/sys/kernel", "/home",
                       "/var", "/run", sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"),
                       "/tmp", "/dev/shm", "/work/outputs"):
            try:
                open(folder + "/x", "w").close(); print(folder)
            except OSError: pass
        leave(); reflect()
        """
    )
    done = await targets.world.carry_out()

    assert done.said("stdout") == ["/tmp", "/dev/shm", "/work/outputs"]


async def test_two_sessions_do_not_see_each_other(targets: Targets) -> None:
    targets.world.program(
        """
        import socket, time
        for folder in ("/tmp", "/dev/shm", "/work/outputs"): open(folder + "/mine", "w").close()
        server = socket.socket(socket.AF_UNIX); server.bind("\\0shared"); server.listen()
        port = socket.create_server(("127.0.0.1", 47123))
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
        print(sorted(os.listdir("/tmp")), sorted(os.listdir("/work/outputs")), len(processes))
        time.sleep(1.5)
        leave(); reflect()
        """
    )
    one, two = await asyncio.gather(targets.world.carry_out(), targets.world.carry_out())

    for done in (one, two):
        assert done.ending == ("succeeded", "Completed"), done.message
        assert done.said("stdout") == ["['mine'] ['mine'] 2"]


async def test_a_program_swapped_at_any_moment_is_recorded_as_what_ran(targets: Targets) -> None:
    world = targets.world
    body = """
import hashlib
print(hashlib.sha256(open("/work/program", "rb").read()).hexdigest(), VERSION)
leave(); reflect()
"""
    sources = []
    for version in ("A", "B"):
        world.program(f"VERSION = {version!r}\n" + body)
        sources.append((world.programs / "agent.py").read_bytes() + b"#" * 200_000)
    (world.programs / "agent.py").write_bytes(sources[0])
    stop = False

    def swap() -> None:
        turn = 0
        while not stop:
            turn += 1
            if turn % 3:  # in place, same length: a reader may meet some of each, and it is still a program
                with (world.programs / "agent.py").open("r+b", buffering=0) as file:
                    file.write(sources[turn % 2])
            else:
                (world.programs / "new").write_bytes(sources[turn % 2])
                (world.programs / "new").replace(world.programs / "agent.py")

    swapping = asyncio.create_task(asyncio.to_thread(swap))
    try:
        ran = [await world.carry_out() for _ in range(12)]
    finally:
        stop = True
        await swapping

    for done in ran:
        (recorded,) = [item["digest"] for item in done.run.facts["materials"] if item["role"] == "program"]
        assert done.ending == ("succeeded", "Completed"), done.message
        assert f"sha256:{done.said('stdout')[0].split()[0]}" == recorded
    assert len({done.said("stdout")[0] for done in ran}) > 1, "the swaps were seen"


async def test_a_program_swapped_between_hashing_and_starting_still_runs_as_hashed(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triplane.session import launch

    world = targets.world
    world.program("print('the hashed one'); leave(); reflect()")
    original = (world.programs / "agent.py").read_bytes()
    measured = launch.measure_program

    def measure_then_swap(*arguments: Any) -> Any:
        found = measured(*arguments)
        world.program("print('the swapped one'); leave(); reflect()")
        return found

    monkeypatch.setattr(launch, "measure_program", measure_then_swap)
    done = await world.carry_out(harness={"program": "agent.py", "digest": sha256(original)})

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["the hashed one"]
    assert (world.programs / "agent.py").read_bytes() != original, "the swap did happen"


async def test_socket_families_no_namespace_holds_back_are_refused(targets: Targets) -> None:
    targets.world.program(
        """
        import errno, socket
        for family in (38, 40, 17, 44):  # crypto, vsock, packet, XDP
            try: socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM)
            except OSError as error: print(family, errno.errorcode[error.errno])
        leave(); reflect()
        """
    )
    done = await targets.world.carry_out()

    assert done.said("stdout") == [f"{family} EAFNOSUPPORT" for family in (38, 40, 17, 44)]


async def test_all_of_this_holds_for_an_ordinary_user_too(targets: Targets) -> None:
    kit = await targets.world.kit()
    assert kit.isolation.sandbox is not None, (
        f"no sandbox for user {os.geteuid()} ({kit.isolation.problem}); isolation is promised wherever user namespaces "
        "exist: allow them (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
    )
    if os.geteuid() != 0:
        assert kit.isolation.sandbox.mode is Mode.MAPPED
        return
    assert kit.isolation.sandbox.mode is Mode.DROPPED
    again = await asyncio.to_thread(pytest_as_ordinary_user, str(Path(__file__)))

    assert again.returncode == 0, again.stdout[-6000:] + again.stderr[-2000:]
    assert " passed" in again.stdout
    assert "skipped" not in again.stdout


def _files(secrets: dict[str, Path]) -> list[list[Any]]:
    return [[name, "list_folder" if path.is_dir() else "read_file", str(path)] for name, path in secrets.items()]


async def _secrets(world: World) -> dict[str, Path]:
    """Files as ``triplane up`` leaves them, readable by the runner's user."""
    store = FilesystemContentStore(world.home / "cas")
    digest = (await store.store(b"a blob of somebody else")).removeprefix("sha256:")
    (blob,) = [path for path in (world.home / "cas").rglob("*") if path.is_file() and digest[4:] in path.name]
    found = {"the blob store": world.home / "cas", "a blob": blob}
    for name, place in {
        "the kubeconfig": "cluster/admin.kubeconfig",
        "a token": "secrets/token_runner",
        "a database password": "secrets/db_triplane_gateway",
        "another session's order": "run/sessions/other-1/order.json",
        "another session's output": "run/sessions/other-1/outputs/report.md",
        "the endpoints": "run/endpoints.json",
    }.items():
        path = world.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
        path.chmod(0o600)
        found[name] = path
    shared = Path("/dev/shm", f"tri-{uuid.uuid4().hex}")
    shared.write_text("secret")
    found[_ELSEWHERE[0]] = shared
    found["the machine's users"] = Path("/etc/shells")
    private = Path.home() / f".tri-{uuid.uuid4().hex}"
    private.write_text("secret")
    found[_ELSEWHERE[1]] = private
    found["the machine's state"] = Path("/var/lib")
    found["the machine's devices"] = Path("/sys/class")
    found["the repository"] = PROBE
    return found


async def _servers(home: Path, running: AsyncExitStack) -> list[list[Any]]:
    """A Postgres-like socket and port, an API-server-like TLS port, an abstract socket, every address we have."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await writer.drain()
        writer.close()

    folder = home / "pg"
    folder.mkdir()
    abstract = f"tri-{uuid.uuid4().hex}"
    servers = [
        await asyncio.start_unix_server(greet, folder / ".s.PGSQL.5432"),
        await asyncio.start_unix_server(greet, "\0" + abstract),
        await asyncio.start_server(greet, "0.0.0.0", 0),
        await asyncio.start_server(greet, "127.0.0.1", 0, ssl=_tls(home)),
    ]
    for server in servers:
        running.callback(server.close)
    port, tls_port = (server.sockets[0].getsockname()[1] for server in servers[2:])
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
    running.callback(transport.close)
    probes: list[list[Any]] = [
        ["the database's socket", "unix_socket", str(folder / ".s.PGSQL.5432")],
        ["an abstract socket", "unix_socket", "@" + abstract],
        ["the API server's port", "tls", ["127.0.0.1", tls_port]],
        ["datagrams", "udp", list(transport.get_extra_info("sockname"))],
    ]
    probes += [[f"the database's port at {address}", "tcp", [address, port]] for address in _addresses()]
    return probes


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(b"pong", address)


def _addresses() -> list[str]:
    """Loopback, another loopback address, and the machine's own address where it has one."""
    found = ["127.0.0.1", "127.0.0.2"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # TEST-NET-1: no packet is sent
        except OSError:
            return found
        return [*found, route.getsockname()[0]]


def _tls(home: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = home / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def _outside(targets: Targets) -> dict[str, str]:
    file = targets.world.home / "probes.json"
    file.write_text(json.dumps(targets.probes))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROBE),
        str(file),
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    said, _ = await process.communicate()
    return dict(json.loads(said))
