"""Ways out past the egress proxy: each reaches the inside of a network when one check is taken away, and is refused
with all of them in place.

The proxy is the real one on a real socket; the network around it is played: every address there answers, with its own
name, so that what was reached is known.
"""

import asyncio
import base64
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.world import World, make_world

from triplane.domain.egress import Address, Ruling, Target
from triplane.session import connect as connecting
from triplane.session import egress
from triplane.session.egress import EgressProxy, Limits
from triplane.session.harness.protocol import Record

pytestmark = pytest.mark.attacks
PUBLIC = "93.184.216.34"


@dataclass
class Network:
    """Names, and what was connected to. ``names`` gives a list of answers, one per look-up, the last for ever."""

    names: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    async def resolve(self, name: str, port: int) -> Sequence[Address]:
        self.asked.append(name)
        answers = self.names.get(name)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(each) for each in answer]

    async def connect(self, address: Address, port: int) -> socket.socket:
        """Whatever the address, something answers, and says which it is."""
        self.reached.append(str(address))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(f"inside {address}".encode())
        theirs.close()
        return ours

    async def record(self, item: Record) -> None:
        self.records.append(item)

    def told(self) -> list[tuple[str, str]]:
        return [(str(item.payload["verdict"]), str(item.payload["target"])) for item in self.records
                if item.type == "decision"]  # fmt: skip


@asynccontextmanager
async def proxied(network: Network, *patterns: str, **options: Any) -> AsyncIterator[int]:
    """The port of a proxy of this network."""
    door = socket.create_server(("127.0.0.1", 0))
    door.setblocking(False)
    maker = options.pop("maker", EgressProxy)
    proxy = maker(door, patterns, network.record, resolve=network.resolve, connect=network.connect, **options)
    await proxy.start()
    try:
        yield door.getsockname()[1]
    finally:
        await proxy.close()
        door.close()


async def ask(port: int, request: str | bytes) -> str:
    """Everything the proxy says to this request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode() if isinstance(request, str) else request)
    try:
        async with asyncio.timeout(10):
            return (await reader.read()).decode("utf-8", "replace")
    finally:
        writer.close()


def connect(target: str, *headers: str) -> str:
    return "\r\n".join([f"CONNECT {target} HTTP/1.1", *headers, "", ""])


def _everything(patterns: Sequence[str], target: Target, addresses: Sequence[Address]) -> Ruling:
    """The weakened check: whoever has any egress may go anywhere."""
    return Ruling(tuple(addresses))


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("169.254.169.254:443", id="the metadata service of a cloud"),
        pytest.param("168.63.129.16:443", id="the metadata service of a cloud at a public address"),
        pytest.param("[fd00:ec2::254]:443", id="the metadata service over IPv6"),
        pytest.param("127.0.0.1:443", id="the session host's loopback"),
        pytest.param("[::1]:443", id="the loopback over IPv6"),
        pytest.param("0.0.0.0:443", id="this machine as the unspecified address"),
        pytest.param("[::]:443", id="this machine as the unspecified address over IPv6"),
        pytest.param("10.96.0.1:443", id="the API server's service address"),
        pytest.param("172.16.0.1:443", id="a private network"),
        pytest.param("192.168.1.1:443", id="a router"),
        pytest.param("100.64.0.1:443", id="behind a carrier's address translation"),
        pytest.param("[fe80::1]:443", id="a link-local neighbour"),
        pytest.param("[fc00::1]:443", id="a unique local address"),
        pytest.param("[::ffff:10.0.0.1]:443", id="a private address spelled as IPv6"),
        pytest.param("[::ffff:a00:1]:443", id="the same in hexadecimal"),
        pytest.param("[::10.0.0.1]:443", id="an IPv4-compatible address"),
        pytest.param("[64:ff9b::10.0.0.1]:443", id="a private address behind a translator"),
        pytest.param("[2002:a00:1::]:443", id="a private address in a 6to4 one"),
        pytest.param("224.0.0.1:443", id="a multicast group"),
        pytest.param("255.255.255.255:443", id="the broadcast address"),
    ],
)
async def test_leave_for_every_public_host_is_no_leave_for_the_inside(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    async with proxied(network, "*") as port:
        with monkeypatch.context() as weakened:
            weakened.setattr(egress, "allowed", _everything)
            assert "inside" in await ask(port, connect(target))
        reached = list(network.reached)
        answer = await ask(port, connect(target))
    assert answer.startswith("HTTP/1.1 403 Forbidden: egress ")
    assert "axis egress: *" in answer
    assert network.reached == reached, "nothing was connected to"
    assert [verdict for verdict, _ in network.told()] == ["allowed", "refused"]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        pytest.param([["127.0.0.1"]], "127.0.0.1", id="a name that leads to loopback"),
        pytest.param([["169.254.169.254"]], "169.254.169.254", id="a name that leads to metadata"),
        pytest.param([["::ffff:192.168.0.1"]], "192.168.0.1", id="a name that leads to a mapped private address"),
        pytest.param([["fd00::1", "10.0.0.1"]], "fd00::1, 10.0.0.1", id="a name with private addresses only"),
    ],
)
async def test_a_granted_name_does_not_lead_inside(
    answers: list[list[str]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network({"evil.example": answers})
    async with proxied(network, "evil.example", "*.example") as port:
        with monkeypatch.context() as weakened:
            weakened.setattr(egress, "allowed", _everything)
            assert "inside" in await ask(port, connect("evil.example:443"))
        answer = await ask(port, connect("evil.example:443"))
    assert answer.startswith("HTTP/1.1 403 ")
    assert f"it leads to {why}, which no public host has" in answer
    assert len(network.reached) == 1


class _AsksTwice(EgressProxy):
    """The weakened check: it rules on a name, and connects to that name."""

    async def _connected(self, target: Target, addresses: Sequence[Address]) -> tuple[socket.socket, Address]:
        return await super()._connected(target, tuple(await self._resolve(target.host, target.port)))


async def test_a_name_service_that_answers_differently_the_second_time_gains_nothing() -> None:
    rebinding = [[PUBLIC], ["127.0.0.1"]]
    network = Network({"evil.example": list(rebinding)})
    async with proxied(network, "evil.example", maker=_AsksTwice) as port:
        assert "inside 127.0.0.1" in await ask(port, connect("evil.example:443"))

    network = Network({"evil.example": list(rebinding)})
    async with proxied(network, "evil.example") as port:
        assert f"inside {PUBLIC}" in await ask(port, connect("evil.example:443"))
        assert network.asked == ["evil.example"], "asked once"
        assert "403 Forbidden" in await ask(port, connect("evil.example:443"))
    assert network.reached == [PUBLIC]


async def test_of_a_public_and_a_private_address_only_the_public_one_is_connected_to() -> None:
    network = Network({"evil.example": [["10.0.0.1", PUBLIC, "127.0.0.1"]]})
    async with proxied(network, "*") as port:
        await ask(port, connect("evil.example:443"))
    assert network.reached == [PUBLIC]


def _careless(text: str) -> Target:
    """The weakened check: a target as some clients would read it."""
    host, _, port = text.rpartition(":")
    host = host.rpartition("@")[2].rpartition("/")[2].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        address = ipaddress.ip_address("127.0.0.1")
    return Target("granted.example", int(port), address)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("granted.example@127.0.0.1:443", id="user information before the host"),
        pytest.param("https://granted.example/@127.0.0.1:443", id="a URL instead of host and port"),
        pytest.param("2130706433:443", id="an address as one number"),
        pytest.param("0x7f000001:443", id="an address in hexadecimal"),
        pytest.param("0177.0.0.1:443", id="an address in octal"),
        pytest.param("127.1:443", id="a shortened address"),
        pytest.param("[fe80::1%25eth0]:443", id="an address with a zone"),
        pytest.param("[::ffff:127.0.0.1%1]:443", id="a mapped address with a zone"),
        pytest.param("granted.example%00.evil.example:443", id="percent-encoding"),
        pytest.param("gr\u0430nted.example:443", id="a letter of another script"),
        pytest.param("granted.example..:443", id="two final dots"),
        pytest.param(".granted.example:443", id="a leading dot"),
        pytest.param("granted.example:0443", id="a port with a leading zero"),
        pytest.param("granted.example:65979", id="a port beyond 65535"),
        pytest.param("granted.example:443:443", id="two ports"),
        pytest.param("granted.example", id="no port"),
        pytest.param("*:443", id="a pattern instead of a name"),
        pytest.param("*.example:443", id="a wildcard instead of a name"),
    ],
)
async def test_a_target_that_could_be_read_in_two_ways_is_refused(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network({"granted.example": [[PUBLIC]]})
    async with proxied(network, "granted.example", "*.example") as port:
        answer = await ask(port, connect(target).encode("utf-8"))
        assert answer.startswith(("HTTP/1.1 400 ", "HTTP/1.1 403 ")), answer
        assert network.reached == []
        assert network.asked == []
        with monkeypatch.context() as weakened:
            weakened.setattr(connecting, "parse_target", lambda text: _careless("x:443" if ":" not in text else
                             text.rpartition(":")[0] + ":443"))  # fmt: skip
            weakened.setattr(egress, "worth_resolving", lambda patterns, target: True)
            weakened.setattr(egress, "allowed", _everything)
            assert "inside" in await ask(port, connect(target).encode("utf-8"))


@pytest.mark.parametrize(
    "spelling", ["granted.example:443", "GRANTED.Example:443", "granted.example.:443"],
    ids=["as it is", "in capitals", "with its final dot"],
)  # fmt: skip
async def test_spellings_that_mean_the_same_are_the_same(spelling: str) -> None:
    network = Network({"granted.example": [[PUBLIC]]})
    async with proxied(network, "Granted.example") as port:
        assert "200 Connection Established" in await ask(port, connect(spelling))
    assert network.told() == [("allowed", "granted.example:443")]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param("GET http://granted.example/ HTTP/1.1\r\n\r\n", 405, id="plain http, which a redirect could turn"),
        pytest.param("POST http://169.254.169.254/latest HTTP/1.1\r\n\r\n", 405, id="plain http to metadata"),
        pytest.param("GET / HTTP/1.1\r\nHost: granted.example\r\n\r\n", 405, id="a request to the proxy itself"),
        pytest.param("connect granted.example:443 HTTP/1.1\r\n\r\n", 405, id="a method in small letters"),
        pytest.param(
            "CONNECT other.example:443 HTTP/1.1\r\nHost: granted.example:443\r\n\r\n", 403, id="another host in Host"
        ),
        pytest.param("CONNECT granted.example:443 HTTP/1.1 x\r\n\r\n", 400, id="a fourth word"),
        pytest.param("CONNECT  granted.example:443 HTTP/1.1\r\n\r\n", 400, id="two spaces"),
        pytest.param("CONNECT granted.example:443 HTTP/2.0\r\n\r\n", 400, id="another protocol"),
        pytest.param("CONNECT granted.example:443 HTTP/1.1\nX: y\r\n\r\n", 400, id="a bare line feed"),
        pytest.param("CONNECT granted.example:443 HTTP/1.1\r\nX: \x00\r\n\r\n", 400, id="a NUL in a header"),
        pytest.param("CONNECT granted.example:443 HTTP/1.1\r\nX: \x1b[2J\r\n\r\n", 400, id="a terminal's escape"),
        pytest.param("CONNECT granted.example:443 HTTP/1.1\r\n" + "X: " + "y" * 9000 + "\r\n\r\n", 431, id="too long"),
        pytest.param("\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, id="TLS without a proxy request"),
    ],
)
async def test_only_a_plain_connect_to_a_granted_host_opens_anything(request_: str, status: int) -> None:
    network = Network({"granted.example": [[PUBLIC]], "other.example": [[PUBLIC]]})
    async with proxied(network, "granted.example") as port:
        answer = await ask(port, request_)
        assert network.reached == []
        assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert "200 Connection Established" in await ask(port, connect("granted.example:443"))
    assert network.told()[0][0] == "refused"


async def test_a_name_that_is_not_granted_is_not_even_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the name service would carry out what the connection may not."""
    network = Network({"stolen-data.evil.example": [["10.1.2.3"]]})
    async with proxied(network, "granted.example", "10.0.0.0/8") as port:
        with monkeypatch.context() as weakened:
            weakened.setattr(egress, "worth_resolving", lambda patterns, target: True)
            await ask(port, connect("stolen-data.evil.example:443"))
            assert network.asked == ["stolen-data.evil.example"]
        network.asked.clear()
        assert "403 Forbidden" in await ask(port, connect("stolen-data.evil.example:443"))
    assert network.asked == []


@pytest.mark.parametrize(
    ("patterns", "target", "passes"),
    [
        pytest.param(["10.1.0.0/16:5432"], "10.1.2.3:5432", True, id="a block that is named"),
        pytest.param(["10.1.0.0/16:5432"], "10.2.2.3:5432", False, id="beside the block"),
        pytest.param(["10.1.0.0/16:5432"], "10.1.2.3:5433", False, id="another port of it"),
        pytest.param(["127.0.0.1:8443"], "127.0.0.1:8443", True, id="an address that is named"),
        pytest.param(["granted.example:8443"], "granted.example:443", False, id="another port of a host"),
        pytest.param(["*.example"], "a.b.example:443", True, id="any depth beneath a domain"),
        pytest.param(["*.example"], "example:443", False, id="the domain itself"),
        pytest.param(["*.example"], "evilexample:443", False, id="a name that only ends alike"),
        pytest.param([f"{PUBLIC}"], f"{PUBLIC}:443", True, id="a public address that is named"),
        pytest.param(["granted.example"], f"{PUBLIC}:443", False, id="the address instead of the name"),
        pytest.param(["*"], f"{PUBLIC}:443", True, id="a public address under *"),
    ],
)
async def test_what_is_granted_passes_and_no_more(patterns: list[str], target: str, passes: bool) -> None:
    network = Network({name: [[PUBLIC]] for name in ("granted.example", "a.b.example", "example", "evilexample")})
    async with proxied(network, *patterns) as port:
        answer = await ask(port, connect(target))
    assert answer.startswith("HTTP/1.1 200 " if passes else "HTTP/1.1 403 "), answer


async def test_the_machine_s_own_public_address_is_not_a_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services bound to every address answer there too."""
    server = await asyncio.start_server(lambda _, writer: writer.write(b"inside") or writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(egress, "allowed", _everything)  # 127.0.0.1 plays a public address of this machine

    async def real(address: Address, port: int) -> socket.socket:
        return await egress._system_connect(address, port)

    network = Network()
    network.connect = real  # type: ignore[method-assign]
    async with server, proxied(network, "*") as proxy:
        assert "inside" in await ask(proxy, connect(f"127.0.0.1:{port}"))
        monkeypatch.setattr(egress, "is_public_address", lambda address: True)
        assert "is the session host's own machine" in await ask(proxy, connect(f"127.0.0.1:{port}"))


async def test_without_a_sandbox_only_who_knows_the_word_is_served() -> None:
    """Everybody on the machine can reach the port; only the harness was told the word."""
    network = Network({"granted.example": [[PUBLIC]]})
    shown = base64.b64encode(b"run:right").decode()
    wrong = base64.b64encode(b"run:wrong").decode()
    async with proxied(network, "granted.example") as open_port:
        assert "200 Connection" in await ask(open_port, connect("granted.example:443"))
    async with proxied(network, "granted.example", word="right") as port:
        for headers in ([], [f"Proxy-Authorization: Basic {wrong}"], [f"Authorization: Basic {shown}"],
                        [f"Proxy-Authorization: Bearer {shown}"]):  # fmt: skip
            assert "407 Proxy Authentication Required" in await ask(port, connect("granted.example:443", *headers))
        good = connect("granted.example:443", f"proxy-authorization: basic {shown}")
        assert "200 Connection" in await ask(port, good)
    assert network.reached == [PUBLIC] * 2


async def test_connections_without_end_take_no_descriptors_from_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(at_once=4)
    async with proxied(Network({}), "granted.example", limits=limits) as port:
        assert await _accepted_of(port, 100) <= 4 + egress._REFUSED_AT_ONCE
    monkeypatch.setattr(egress, "_REFUSED_AT_ONCE", 10_000)  # accepted as they come
    async with proxied(Network({}), "granted.example", limits=limits) as port:
        assert await _accepted_of(port, 100) >= 100


async def _accepted_of(port: int, many: int) -> int:
    """Descriptors that so many silent connections cost whoever serves the port (this process has both ends)."""
    before = len(os.listdir("/proc/self/fd"))
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(many)]
    try:
        await asyncio.sleep(0.3)
        return len(os.listdir("/proc/self/fd")) - before - many
    finally:
        for client in clients:
            client.close()


async def test_limits_hold_and_say_so() -> None:
    network = Network({"granted.example": [[PUBLIC]]})
    limits = Limits(at_once=2, in_all=6, header_seconds=0.3)
    async with proxied(network, "granted.example", limits=limits) as port:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert "429 Too Many Requests: 2 connections are open" in await ask(port, connect("granted.example:443"))
        for reader, writer in waiting:  # said nothing for 0.3 s
            assert b"no request came within 0.3 s" in await reader.read()
            writer.close()
        for _ in range(3):
            assert "200 Connection" in await ask(port, connect("granted.example:443"))
        for _ in range(3):
            assert "this run has made 6 requests" in await ask(port, connect("granted.example:443"))
    assert len(network.told()) == 3 + 3 + 1, "what is beyond the limit is told once"


# The same in a run: the program in its sandbox, the host with its real proxy.

PROGRAM = """
import socket, urllib.parse
proxy = urllib.parse.urlsplit(os.environ.get("HTTPS_PROXY", "http://127.0.0.1:1"))
def through(target):
    try:
        with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as out:
            out.sendall(f"CONNECT {target} HTTP/1.1\\r\\n\\r\\n".encode())
            said = b""
            while chunk := out.recv(65536):
                said += chunk
            return said.decode()
    except OSError as error:
        return f"no way out: {error}"
def directly(host, port):
    try:
        with socket.create_connection((host, port), timeout=5) as out:
            return out.recv(100).decode()
    except OSError as error:
        return f"no way out: {error}"
found = {target: through(target) for target in sys.argv[2:]}
found["directly"] = directly("127.0.0.1", int(sys.argv[1]))
found["variables"] = sorted(name for name in os.environ if "proxy" in name.lower())
leave(text=json.dumps(found)); reflect()
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "home")
    async with made.serving():
        yield made


async def test_a_run_reaches_what_it_is_granted_and_nothing_else(world: World) -> None:
    def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello from the machine")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    harness: Callable[..., dict[str, Any]] = lambda *args: {  # noqa: E731
        "program": "agent.py", "interpreter": "python3", "args": list(args), "env": []
    }  # fmt: skip
    target = f"127.0.0.1:{port}"
    async with server:
        done = await world.carry_out(
            PROGRAM,
            harness=harness(str(port), target, "10.0.0.1:443"),
            authority={"egress": [target]},
        )
        assert done.ending == ("succeeded", "Completed"), done.message
        found = json.loads(await world.read(done.run.result.outputs[0].digest))  # type: ignore[union-attr]
        assert found[target] == "HTTP/1.1 200 Connection Established\r\n\r\nhello from the machine"
        assert "403 Forbidden: egress 10.0.0.1:443 is refused" in found["10.0.0.1:443"]
        assert found["directly"].startswith("no way out")
        assert "HTTPS_PROXY" in found["variables"]

        granted_nothing = await world.carry_out(PROGRAM, harness=harness(str(port), target), authority={"egress": []})
        found = json.loads(await world.read(granted_nothing.run.result.outputs[0].digest))  # type: ignore[union-attr]
        assert found[target].startswith("no way out")
        assert found["variables"] == []

    decisions = [item["payload"] for item in done.records if item["type"] == "decision"]
    assert [(item["verdict"], item["target"]) for item in decisions] == [
        ("allowed", target), ("refused", "10.0.0.1:443")
    ]  # fmt: skip
    flows = [item["payload"] for item in done.records if item["payload"].get("kind") == "egress"]
    assert [(item["target"], item["address"], item["octetsIn"], item["ended"]) for item in flows] == [
        (target, "127.0.0.1", len(b"hello from the machine"), "closed")
    ]
    assert done.run.facts["network"] == "proxy"
    assert done.run.facts["egress"] == [target]
    assert granted_nothing.run.facts["network"] == "none"


async def test_a_harness_cannot_forge_what_the_proxy_tells(world: World) -> None:
    """Neither the verdict nor the record of a connection; nor can it take their place by saying the same first."""
    done = await world.carry_out(
        """
        say(type="decision", source="host", axis="egress", target="x:443", verdict="allowed", text="forged")
        say(type="observation", observationId="1", kind="egress", text="forged", source="host", octetsOut=0)
        leave(); reflect()
        """
    )
    assert not [item for item in done.records if item["type"] == "decision"]
    assert [item["payload"] for item in done.records if item["payload"].get("kind") == "egress"] == [
        {"observationId": "1", "kind": "egress", "text": "forged"}
    ]


def test_a_run_reaches_no_more_as_an_ordinary_user_either() -> None:
    if os.geteuid() != 0:
        return  # the tests above were just that
    done = pytest_as_ordinary_user("tests/attacks/test_egress.py", "-k", "a_run_reaches_what or cannot_forge")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
