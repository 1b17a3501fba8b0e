"""Where the webhook listens: alone, beside other replicas, and without Nagle's algorithm."""

import asyncio
import socket
from pathlib import Path

import pytest

from triplane import endpoints
from triplane.admission.endpoint import NAME, listening_socket, own_socket, url_of
from triplane.errors import Unavailable
from triplane.settings import Settings


def settings(home: Path, **more: int) -> Settings:
    return Settings(home=home, **more)  # type: ignore[arg-type]


def test_replicas_share_the_port_that_the_first_announced(tmp_path: Path) -> None:
    two = settings(tmp_path, admission_replicas=2)
    with listening_socket(two) as first:
        endpoints.announce(two.run, NAME, url_of(first))
        with listening_socket(two) as second, own_socket(two) as own:
            assert second.getsockname() == first.getsockname()
            assert own.getsockname() != first.getsockname()


def test_one_alone_shares_its_port_with_nobody(tmp_path: Path) -> None:
    one = settings(tmp_path)
    with listening_socket(one) as first:
        first.listen()
        endpoints.announce(one.run, NAME, url_of(first))
        with listening_socket(one) as another:
            assert another.getsockname() != first.getsockname()
        with pytest.raises(Unavailable, match="cannot listen"):
            listening_socket(settings(tmp_path, admission_port=first.getsockname()[1]))


async def test_an_answer_does_not_wait_for_an_acknowledgement(tmp_path: Path) -> None:
    """asyncio turns Nagle's algorithm off only for a socket that says it is TCP."""
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with listening_socket(settings(tmp_path)) as listener:
        server = await asyncio.start_server(answer, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await seen != 0
            writer.close()
            await writer.wait_closed()
