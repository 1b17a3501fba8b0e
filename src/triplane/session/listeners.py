"""Doors in the wall: sockets on which the session host hears its harness, and nobody else does.

A sandbox has a network namespace of its own with nothing but a loopback interface. What listens there is opened by the
launcher, inside, and handed out over an inherited socket pair (unix(7), SCM_RIGHTS) before the launcher becomes the
program: a socket stays in the namespace it was made in, whoever accepts on it. So the host serves the harness without
either of them sharing a file, a folder or a network. The program itself gets no descriptor of it.

Without a sandbox the same names stand for free loopback ports of the machine, which everybody on it may call: whoever
serves on them must ask for a word that only the harness was told.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from triplane.errors import TriplaneError

PORTS: Mapping[str, int] = MappingProxyType({"proxy": 3128, "mcp": 3129})
"""Port of each door on the sandbox's 127.0.0.1."""
NONE = "-"
"""What the launcher is told where no door is wanted."""
_BACKLOG = 128
_PAUSE_SECONDS = 0.1


class NoListener(TriplaneError):
    """A listening socket could not be had."""


def door_pair(names: Sequence[str]) -> tuple[socket.socket | None, socket.socket | None]:
    """``(ours, the launcher's)`` ends of the pair that sockets are handed over on; both None if none is wanted."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) if names else (None, None)


def request(names: Sequence[str], pair: socket.socket | None) -> str:
    """The launcher's argument: the descriptor to hand sockets over on, and the ports to open."""
    if pair is None:
        return NONE
    return f"{pair.fileno()}:{','.join(str(PORTS[name]) for name in names)}"


def receive(names: Sequence[str], pair: socket.socket) -> dict[str, socket.socket]:
    """What the launcher handed over, by name. It has done so before it said that it is ready: this does not wait.

    Raises ``NoListener`` where something else came.
    """
    pair.setblocking(False)
    try:
        _, descriptors, _, _ = socket.recv_fds(pair, 16, len(names), socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise NoListener(f"the launcher handed over no listening sockets: {error.strerror}") from error
    if len(descriptors) != len(names):
        for descriptor in descriptors:
            os.close(descriptor)
        raise NoListener(f"the launcher handed over {len(descriptors)} listening sockets instead of {len(names)}")
    opened = {name: socket.socket(fileno=descriptor) for name, descriptor in zip(names, descriptors, strict=True)}
    for door in opened.values():
        door.setblocking(False)
    return opened


def open_loopback(names: Sequence[str]) -> dict[str, socket.socket]:
    """A free port of this machine's 127.0.0.1 for each name: where there is no sandbox."""
    opened: dict[str, socket.socket] = {}
    try:
        for name in names:
            door = opened[name] = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            door.bind(("127.0.0.1", 0))
            door.listen(_BACKLOG)
            door.setblocking(False)
    except OSError as error:
        close(opened)
        raise NoListener(f"no loopback port can be opened: {error.strerror}") from error
    return opened


async def accept(door: socket.socket, slots: asyncio.Semaphore, take: Callable[[socket.socket], None]) -> None:
    """Accept for ever, one connection for each slot: whom there is no slot for waits in the kernel's queue, where the
    runner has no descriptor in it. A program that connects without end so takes nothing from other runs.

    ``take`` owns the connection, and releases the slot when it is closed.
    """
    loop = asyncio.get_running_loop()
    door.setblocking(False)
    while True:
        await slots.acquire()
        try:
            connection, _ = await loop.sock_accept(door)
        except OSError:  # it hung up before, or there is no descriptor for the moment
            slots.release()
            await asyncio.sleep(_PAUSE_SECONDS)
        except BaseException:
            slots.release()
            raise
        else:
            take(connection)


def close(doors: Mapping[str, socket.socket]) -> None:
    """Close them all. May be called again."""
    for door in doors.values():
        door.close()
