"""The one way out: an HTTP CONNECT proxy between a harness and the hosts its authority grants.

The sandbox has no network; this listens at its 127.0.0.1:3128 (``session.listeners``) from outside. A name is resolved
once, here, the addresses found are ruled on (``domain.egress``), and the connection goes to one of *those*: between
check and connection nobody is asked again, so a name service that answers differently the second time gains nothing.
What flows afterwards is the harness's own TLS, unseen: the proxy knows whom it spoke with and how much, not what.

Only CONNECT is served. Requests in the clear (``GET http://…``) are refused with a text that says so: whoever lay in
between could change them, and a redirect could lead past the check.

Every request is told in the journal: a ``decision`` before the first octet flows, an ``observation`` with the octets
when the connection ends. A harness cannot write either of that shape (its own lines have no ``source``).
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from triplane.domain.authority_egress import is_public_address
from triplane.domain.egress import Address, Target, allowed, refusal, worth_resolving
from triplane.session.connect import Refused, answer, read_head, requested
from triplane.session.harness.protocol import Record
from triplane.session.listeners import accept

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""``(name, port)`` to addresses; raises ``OSError``."""
Connect = Callable[[Address, int], Awaitable[socket.socket]]
"""A connection to exactly this address; raises ``OSError``."""
_CHUNK = 64 * 1024
_LAST_WORD_SECONDS = 5.0
_REFUSED_AT_ONCE = 16
"""Connections beyond the limit that are told so at the same time; further ones are not accepted yet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may ask of the proxy."""

    at_once: int = 64
    """Connections at the same time."""
    in_all: int = 10_000
    """Requests of a run; beyond, all are refused, and one record says so."""
    header_octets: int = 8 * 1024
    header_seconds: float = 10.0
    resolve_seconds: float = 10.0
    connect_seconds: float = 10.0
    idle_seconds: float = 300.0
    """Longest time in which nothing flows either way."""


@dataclass(slots=True)
class _Flow:
    """How much went through one connection, and when last."""

    sent: int = 0
    received: int = 0
    last: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class EgressProxy:
    """Serves one run. ``start`` it before the program may ask, ``close`` it when the program is gone.

    ``record`` gets every journal record and may wait: then so does the connection. ``word`` is what callers must
    show (as the password of ``http://run:<word>@127.0.0.1``) where others than the harness can reach the door.
    """

    def __init__(
        self,
        door: socket.socket,
        patterns: Sequence[str],
        record: Callable[[Record], Awaitable[None]],
        *,
        word: str | None = None,
        limits: Limits | None = None,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._door = door
        self._patterns = tuple(patterns)
        self._record = record
        self._word = word
        self._limits = limits or Limits()
        self._threads: ThreadPoolExecutor | None = None
        self._resolve = resolve or self._system_resolve
        self._connect = connect or _system_connect
        self._accepting: tuple[asyncio.Task[None], socket.socket] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._asked = 0

    async def start(self) -> None:
        """Answer from now on."""
        slots = asyncio.Semaphore(self._limits.at_once + _REFUSED_AT_ONCE)

        def take(connection: socket.socket) -> None:
            task = asyncio.create_task(self._accepted(connection), name="egress")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

            def gone(_: object) -> None:
                connection.close()  # for a task that never began
                slots.release()

            task.add_done_callback(gone)

        own = self._door.dup()
        self._accepting = asyncio.create_task(accept(own, slots, take), name="egress door"), own

    async def close(self) -> None:
        """End every connection, with its record, and answer no more. May be called again."""
        if self._accepting is not None:
            accepting, own = self._accepting
            self._accepting = None
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            own.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _accepted(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=self._limits.header_octets)
        except BaseException:
            connection.close()
            raise
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the harness hung up, or the journal is full
        except Exception:  # a bug here must not look like the harness's network
            log.exception("the egress proxy failed on a connection")
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: read, rule, connect, relay; each step either goes on or refuses."""
        asked = "?"
        try:
            self._asked += 1
            if self._asked > self._limits.in_all:
                raise Refused(429, f"this run has made {self._limits.in_all} requests; no more are served")
            if len(self._connections) > self._limits.at_once:
                raise Refused(429, f"{self._limits.at_once} connections are open; close some first")
            limits = self._limits
            head = await read_head(reader, octets=limits.header_octets, seconds=limits.header_seconds)
            asked = head[0][:300]
            target = requested(head, self._word)
            asked = str(target)
            addresses = await self._ruled(target)
            remote, address = await self._connected(target, addresses)
        except Refused as refused:
            if self._asked <= self._limits.in_all + 1:
                await self._decided(asked, "refused", str(refused))
            await answer(reader, writer, refused.status, str(refused))
            return
        with remote:
            await self._decided(asked, "allowed", f"egress {asked} at {address}", address=str(address))
            writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            await self._relayed(asked, address, (reader, writer), remote)

    async def _ruled(self, target: Target) -> tuple[Address, ...]:
        """The addresses that may be connected to."""
        if not worth_resolving(self._patterns, target):
            raise Refused(403, refusal(self._patterns, target))
        if target.address is not None:
            addresses: Sequence[Address] = (target.address,)
        else:
            try:
                async with asyncio.timeout(self._limits.resolve_seconds):
                    addresses = await self._resolve(target.host, target.port)
            except (OSError, TimeoutError, UnicodeError) as error:
                raise Refused(502, f"{target.host} cannot be resolved: {error or 'timed out'}") from error
        ruling = allowed(self._patterns, target, addresses)
        if not ruling.addresses:
            raise Refused(403, ruling.refusal)
        return ruling.addresses

    async def _connected(self, target: Target, addresses: Sequence[Address]) -> tuple[socket.socket, Address]:
        """A connection to the first of the addresses that answers; never to a name."""
        problem = ""
        for address in addresses:
            try:
                async with asyncio.timeout(self._limits.connect_seconds):
                    remote = await self._connect(address, target.port)
            except (OSError, TimeoutError) as error:
                problem = f"{address}: {getattr(error, 'strerror', None) or 'timed out'}"
                continue
            if is_public_address(str(address)) and _is_ours(remote, address):
                remote.close()
                raise Refused(403, f"egress {target} is refused: {address} is the session host's own machine")
            return remote, address
        raise Refused(502, f"{target} does not answer ({problem})")

    async def _relayed(
        self,
        asked: str,
        address: Address,
        harness: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        remote: socket.socket,
    ) -> None:
        """Pass octets both ways until both sides are done, one breaks off, or nothing flows for too long."""
        flow, began = _Flow(), asyncio.get_running_loop().time()
        ended = "closed"
        far_reader, far_writer = await asyncio.open_connection(sock=remote)

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copied(harness[0], far_writer, flow, sent=True))
                group.create_task(_copied(far_reader, harness[1], flow, sent=False))

        relaying = asyncio.create_task(both())
        try:
            while not relaying.done():
                left = flow.last + self._limits.idle_seconds - asyncio.get_running_loop().time()
                if left <= 0:
                    ended = "idle"
                    break
                await asyncio.wait({relaying}, timeout=left)
        except asyncio.CancelledError:
            ended = "run over"
            raise
        finally:
            relaying.cancel()
            far_writer.transport.abort()
            payload = {
                "source": "host",
                "kind": "egress",
                "text": f"egress {asked}: {flow.sent} octets out, {flow.received} in, {ended}",
                "target": asked,
                "address": str(address),
                "octetsOut": flow.sent,
                "octetsIn": flow.received,
                "seconds": round(asyncio.get_running_loop().time() - began, 3),
                "ended": ended,
            }
            await asyncio.gather(relaying, return_exceptions=True)
            # A journal that takes nothing more must not hold up the end of a run.
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._record(Record("observation", payload))

    async def _decided(self, asked: str, verdict: str, text: str, **more: str) -> None:
        payload = {"source": "host", "axis": "egress", "target": asked, "verdict": verdict, "text": text, **more}
        await self._record(Record("decision", payload))

    async def _system_resolve(self, name: str, port: int) -> Sequence[Address]:
        """The machine's resolver, in threads of this run's own: a name service that hangs holds up nobody else."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="egress")
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        )
        return [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


async def _system_connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    remote = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        remote.setblocking(False)
        await asyncio.get_running_loop().sock_connect(remote, (str(address), port))
    except BaseException:
        remote.close()
        raise
    return remote


def _is_ours(remote: socket.socket, address: Address) -> bool:
    """The connection leads to this machine: its two ends have one address."""
    name = remote.getsockname()
    return isinstance(name, tuple) and name[0] == str(address)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: _Flow, *, sent: bool) -> None:
    """Pass one way on until its end, and say there that it ended."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
            flow.last = asyncio.get_running_loop().time()
            if sent:
                flow.sent += len(chunk)
            else:
                flow.received += len(chunk)
        if writer.can_write_eof():
            writer.write_eof()
