"""A fault proxy between a client and the API server: it ends the client's TLS under an authority of its own, reads
every request, and does to it what the rules say.

HTTP/1.1 (RFC 9112), one request after another on a connection, watches passed on line by line. The bearer token goes
through untouched, so the server sees the client itself; a client certificate cannot be passed on, and a kubeconfig
with one is refused. Reached through a kubeconfig, since kopf heeds no proxy variables.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.faults.loopthread import LoopThread
from tests.faults.rules import Action, Cut, Rule
from triplane.localcluster.files import write_private
from triplane.localcluster.pki import ensure_pki

WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
REMEMBERED_LINES = 5000
_HEAD_LIMIT = 1 << 20
_HOP = frozenset({"transfer-encoding", "content-length", "connection", "keep-alive"})

Fate = Literal["pass", "hold", "drop"]
"""Of one line of a watch: sent on, kept until released, or lost."""
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the proxy read it."""

    verb: str
    """get, list, watch, create, update, patch or delete."""
    resource: str
    """``tasks``, ``tasks/status``; empty for what is no resource (``/version``)."""
    namespace: str
    name: str
    agent: str
    """The client's User-Agent."""
    at: float
    """Monotonic seconds."""

    @property
    def writes(self) -> bool:
        """Whether it would change something."""
        return self.verb in WRITES.values()

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.namespace}/{self.name}"


def write(*resources: str) -> Callable[[Call], bool]:
    """A condition for rules: any write, or any to these resources."""
    return lambda call: call.writes and (not resources or call.resource in resources)


class Stream:
    """An open watch."""

    def __init__(self, resource: str, writer: asyncio.StreamWriter) -> None:
        self.resource = resource
        self.held: list[bytes] = []
        self._writer = writer

    async def send(self, line: bytes) -> None:
        """One event to the client, as a chunk of its own (RFC 9112 §7.1)."""
        octets = line.rstrip(b"\n") + b"\n"
        self._writer.write(b"%x\r\n%s\r\n" % (len(octets), octets))
        await self._writer.drain()

    def cut(self) -> None:
        """The connection ends without a word."""
        self._writer.transport.abort()


class ApiProxy:
    """Listens on a loopback port between ``start`` and ``stop``. Rules and ``fate`` may be set at any time."""

    def __init__(self, server: str, authority: Path, folder: Path) -> None:
        """``server`` is the API server's URL, ``authority`` its CA; ``folder`` keeps our own."""
        parts = urlsplit(server)
        self._server = (parts.hostname or "", parts.port or 443)
        self._outward = ssl.create_default_context(cafile=str(authority))
        self._pki = ensure_pki(folder, {"proxy": ("127.0.0.1", "localhost")})
        self._loop: LoopThread | None = None
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        """Everything that was asked, in order."""
        self.fate: Callable[[str, Line], Fate] = lambda _resource, _line: "pass"
        """What happens to a line of the watch of that resource."""
        self.streams: list[Stream] = []
        """The watches that are open."""
        self.seen: dict[str, deque[bytes]] = {}
        """Resource to the lines that were sent on."""

    # -- for tests, from any thread ---------------------------------------------------------------------

    def start(self) -> Self:
        """Listen."""
        self._loop = LoopThread("api proxy")
        self._loop.run(self._listen())
        return self

    def stop(self) -> None:
        """Listen no more; open connections are cut."""
        assert self._loop is not None
        self._loop.run(self._close())
        self._loop.close()

    def kubeconfig(self, source: Path, target: Path) -> Path:
        """A copy of ``source`` that leads through here."""
        document = yaml.safe_load(source.read_text())
        authority = base64.b64encode(self._pki.authority.read_bytes()).decode()
        for entry in document["clusters"]:
            entry["cluster"] = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": authority}
        if any("client-certificate" in key for entry in document["users"] for key in entry["user"]):
            raise ValueError(f"{source} holds a client certificate, which no proxy that ends TLS can pass on")
        write_private(target, yaml.safe_dump(document))
        return target

    @contextmanager
    def rule(
        self, when: Callable[[Call], bool], do: Action, *, first: int = 1, times: int | None = 1
    ) -> Iterator[Rule]:
        """A rule for the time of the block."""
        made = Rule(when, do, first, times)
        self.rules.append(made)
        try:
            yield made
        finally:
            self.rules.remove(made)

    def send(self, resource: str, *lines: bytes | Line) -> int:
        """Put these lines into the open watches of ``resource``; how many watches got them."""
        octets = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        return self._run(self._send(resource, octets))

    def release(self, keep: Callable[[Sequence[bytes]], Sequence[bytes]] = lambda held: held) -> None:
        """Send what is held, ``keep`` of it. Set ``fate`` first, or the next line overtakes."""
        self._run(self._release(keep))

    def cut_watches(self, resource: str = "") -> int:
        """Cut the watches of ``resource``, or all; how many."""
        return self._run(self._cut(resource))

    def _run(self, work: Any) -> Any:
        assert self._loop is not None
        return self._loop.run(work)

    # -- in the loop ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self._pki.certificate("proxy"), self._pki.key("proxy"))
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, limit=_HEAD_LIMIT)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _send(self, resource: str, lines: Sequence[bytes]) -> int:
        meant = [stream for stream in self.streams if stream.resource == resource]
        for stream in meant:
            for line in lines:
                await stream.send(line)
        return len(meant)

    async def _release(self, keep: Callable[[Sequence[bytes]], Sequence[bytes]]) -> None:
        for stream in self.streams:
            held, stream.held = stream.held, []
            for line in keep(held):
                await stream.send(line)

    async def _cut(self, resource: str) -> int:
        meant = [stream for stream in self.streams if resource in {"", stream.resource}]
        for stream in meant:
            stream.cut()
        return len(meant)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, with one to the server behind it."""
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if server is None or server[0].at_eof():
                    server = await asyncio.open_connection(*self._server, ssl=self._outward, limit=_HEAD_LIMIT)
                    self._open.add(server[1])
                await self._exchange(head, (reader, writer), server)
        except (Cut, OSError, EOFError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side has gone, or a rule says so
        finally:
            for side in (writer, *(server[1:] if server else ())):
                side.transport.abort()
                self._open.discard(side)

    async def _exchange(
        self,
        head: bytes,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        request, headers = _parse(head)
        body = await _body(client[0], headers)
        call = _call(request, headers, body)
        self.calls.append(call)
        actions = [rule.do for rule in list(self.rules) if rule.applies(call)]
        for action in actions:
            reply = await action.before()
            if reply is not None:
                extra = {"content-type": "application/json", **reply.headers}
                await _answer(client[1], f"HTTP/1.1 {reply.code} Refused", extra, reply.body)
                return
        # Compressed answers could not be read line by line.
        outward = {key: value for key, value in headers.items() if key not in {*_HOP, "accept-encoding"}}
        await _answer(server[1], request, outward, body, bare=not body and request.startswith("GET"))
        status, answered = _parse(await server[0].readuntil(b"\r\n\r\n"))
        if call.verb == "watch" and " 200 " in f"{status} ":
            await self._watch(call, (status, answered), client, server[0])
            return
        content = await _body(server[0], answered)
        for action in actions:
            await action.after()
        await _answer(client[1], status, {k: v for k, v in answered.items() if k not in _HOP}, content)

    async def _watch(
        self,
        call: Call,
        head: tuple[str, Mapping[str, str]],
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: asyncio.StreamReader,
    ) -> None:
        reader, writer = client
        headers = {key: value for key, value in head[1].items() if key not in _HOP}
        writer.write(_head(head[0], {**headers, "transfer-encoding": "chunked"}))
        stream = Stream(call.resource, writer)
        self.streams.append(stream)
        gone = asyncio.create_task(reader.read(1))  # a client says nothing more on a watch but that it goes
        passing = asyncio.create_task(self._pass(stream, server))
        try:
            await asyncio.wait({gone, passing}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done() and passing.exception() is None:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            raise Cut
        finally:
            self.streams.remove(stream)
            for task in (gone, passing):
                task.cancel()
            await asyncio.gather(gone, passing, return_exceptions=True)

    async def _pass(self, stream: Stream, server: asyncio.StreamReader) -> None:
        rest = b""
        async for chunk in _chunks(server):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                fate = self.fate(stream.resource, json.loads(line))
                if fate == "hold":
                    stream.held.append(line)
                elif fate == "pass":
                    self.seen.setdefault(stream.resource, deque(maxlen=REMEMBERED_LINES)).append(line)
                    await stream.send(line)


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    """First line, and the headers by lower-case name."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _head(first: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{first}\r\n{lines}\r\n".encode("latin-1")


async def _answer(
    writer: asyncio.StreamWriter, first: str, headers: Mapping[str, str], body: bytes, *, bare: bool = False
) -> None:
    length = {} if bare else {"content-length": str(len(body))}
    writer.write(_head(first, {**headers, **length}) + body)
    await writer.drain()


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return b"".join([chunk async for chunk in _chunks(reader)])
    return await reader.readexactly(int(headers.get("content-length", 0)))


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")


def _call(request: str, headers: Mapping[str, str], body: bytes) -> Call:
    method, target, _ = request.split(" ", 2)
    parts = urlsplit(target)
    words = parts.path.strip("/").split("/")
    words = words[2:] if words[0] == "api" else words[3:] if words[0] == "apis" else []
    namespace = ""
    if len(words) > 2 and words[0] == "namespaces":
        namespace, words = words[1], words[2:]
    resource, name, subresource = (*words, "", "", "")[:3]
    verb = WRITES.get(method, "get" if name else "list")
    if parse_qs(parts.query).get("watch", ["false"])[0] in {"true", "1"}:
        verb = "watch"
    if verb == "create" and not name:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            name = json.loads(body)["metadata"]["name"]
    full = f"{resource}/{subresource}" if subresource else resource
    return Call(verb, full, namespace, name, headers.get("user-agent", ""), time.monotonic())
