"""Private files, written whole or not at all.

Keys and tokens of the local installation lie in files that only their owner may read. A file appears under
its name only when it is complete, so a crash between two steps never leaves half a key.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from triplane.errors import Corrupt, Unavailable


def private_directory(path: Path) -> Path:
    """Make ``path`` and its missing parents; ``path`` itself is readable by its owner only (0700)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes | str) -> bool:
    """Write ``content`` atomically with mode 0600; False, and the file untouched, if it holds it already."""
    octets = content.encode() if isinstance(content, str) else content
    with suppress(FileNotFoundError):
        if path.read_bytes() == octets and path.stat().st_mode & 0o777 == 0o600:
            return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Unavailable(f"cannot write {path}: {error.strerror}; free space or fix the permissions") from error
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty when there is no such file. Raises ``Corrupt`` for anything else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Corrupt(f"{path} is not JSON: {error}; delete it and run the command again") from error
    if not isinstance(value, dict):
        raise Corrupt(f"{path} does not hold a JSON object; delete it and run the command again")
    return value


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock on ``path`` (short critical sections only: it blocks)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Take the lock on ``path`` if it is free; returns a descriptor to close, or None. Released when the
    holder dies, however it dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


async def lock(path: Path) -> int:
    """Wait for the lock on ``path``; returns a descriptor to close."""
    while True:
        if (descriptor := try_lock(path)) is not None:
            return descriptor
        await asyncio.sleep(0.2)
