"""A file as anchor: best on a file system that somebody else keeps, or that keeps what was written once.

Such a file system may hang, and a thread that waits for it cannot be told to stop. So each anchor has one thread of its
own at a time, which no other work waits for, nor the end of the program; until it returns, the anchor is out of reach.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any, TypeVar

from triplane.adapters.filesystem.ledger import write_durably
from triplane.audit.note import MAX_NOTE
from triplane.errors import InvalidInput, Unavailable

T = TypeVar("T")


class FileAnchor:
    """The latest checkpoint in one file, replaced whole and durably. Raises ``Unavailable`` while an earlier call is
    under way, though its caller has given up: what that writes late is never on top of something newer."""

    kind = "file"
    every_seconds = 0.0
    readable = True

    def __init__(self, path: Path, uri: str = "") -> None:
        self._path = path
        self.uri = uri or f"file:{path}"
        self._under_way: Future[Any] | None = None

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        return await self._apart(self._read)

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``. The folder is made where it is missing."""
        await self._apart(partial(self._write, note))

    async def close(self) -> None:
        """Nothing is open."""

    async def _apart(self, call: Callable[[], T]) -> T:
        if self._under_way is not None and not self._under_way.done():
            raise Unavailable(f"{self._path} has not answered the last call: its file system hangs; look at its server")
        self._under_way = answer = Future[T]()
        answer.set_running_or_notify_cancel()  # a caller that gives up does not end it
        Thread(target=_answer, args=(answer, call), name=f"anchor {self._path}", daemon=True).start()
        return await asyncio.wrap_future(answer)

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                octets = file.read(MAX_NOTE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from error
        if len(octets) > MAX_NOTE:
            raise InvalidInput(f"{self._path} has over {MAX_NOTE} octets: it is no checkpoint")
        return octets or None

    def _write(self, note: bytes) -> None:
        try:
            if self._path.is_char_device() or self._path.is_block_device():
                raise Unavailable(f"{self._path} cannot be written: it is a device, and no file takes its place")
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_durably(self._path.parent / f".{self._path.name}.{token_hex(4)}", self._path, note, 0o644)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error}; make it writable for the operator") from error


def _answer(answer: "Future[T]", call: Callable[[], T]) -> None:
    try:
        found = call()
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(found)
