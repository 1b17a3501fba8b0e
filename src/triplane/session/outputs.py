"""Collecting outputs: what a harness left is hostile until looked at.

Runs after every process of the harness is gone, so nothing moves while it looks.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.domain.redaction import KnownSecrets
from triplane.session.beneath import NotBeneath, NothingThere, open_beneath
from triplane.session.refusal import failed

MAX_OUTPUT = 256 * 1024 * 1024
"""Octets of one output."""
OUTPUTS = "/work/outputs/"
_CHUNK = 1 << 20


@dataclass(slots=True)
class Collected:
    """An output that may be uploaded. Holds an open descriptor until ``close``."""

    name: str
    path: str
    """As the work order names it."""
    media_type: str
    digest: str
    size: int
    _descriptor: int

    async def octets(self) -> AsyncIterator[bytes]:
        """The content, from the beginning at every call."""
        offset = 0
        while chunk := await asyncio.to_thread(os.pread, self._descriptor, _CHUNK, offset):
            offset += len(chunk)
            yield chunk

    def close(self) -> None:
        os.close(self._descriptor)

    def wire(self) -> dict[str, str]:
        """The JSON form of the ``finish`` call."""
        return {"name": self.name, "path": self.path, "digest": self.digest, "mediaType": self.media_type}


async def check_outputs(outputs: Sequence[Collected], secrets: Sequence[str]) -> None:
    """Raise ``RunEndsEarly`` (``SecretInOutput``) where an output, of whatever media type, holds one of the values the
    run was given, in any of the spellings of ``KnownSecrets``."""
    known = KnownSecrets(secrets)
    if not known:
        return
    for output in outputs:
        before = b""
        async for chunk in output.octets():
            if await asyncio.to_thread(known.within, before + chunk):
                raise failed(
                    "SecretInOutput",
                    f"output {output.name}: {output.path} holds the value of a secret that the run was given; it was "
                    "not stored. The harness must leave it out",
                )
            before = chunk[-known.longest :]


def collect(folder: Path, declared: Sequence[Mapping[str, Any]]) -> list[Collected]:
    """Open and hash every declared output (``name``, ``path``, ``mediaType``). Blocking: call it in a thread.

    Raises ``RunEndsEarly``: ``OutputMissing`` where nothing is, ``OutputRefused`` for a link, device, pipe,
    socket, folder, a file with a second name (hard link), a path through a linked folder, or one over 256 MiB.
    """
    collected: list[Collected] = []
    try:
        for output in declared:
            collected.append(_collect_one(folder, output))  # noqa: PERF401 - kept for closing when one is refused
    except BaseException:
        for output_ in collected:
            output_.close()
        raise
    return collected


def _collect_one(folder: Path, output: Mapping[str, Any]) -> Collected:
    name, path = str(output["name"]), str(output["path"])
    if not path.startswith(OUTPUTS):
        raise failed("OutputRefused", f"output {name}: its path {path} is not under {OUTPUTS}")
    try:
        descriptor, status = open_beneath(folder, path.removeprefix(OUTPUTS))
    except NothingThere as error:
        raise failed("OutputMissing", f"output {name}: {path} was not written; the harness must leave it") from error
    except NotBeneath as error:
        raise failed("OutputRefused", f"output {name}: {error}") from error
    try:
        _check(name, path, status)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except BaseException:
        os.close(descriptor)
        raise
    return Collected(name, path, str(output["mediaType"]), f"sha256:{digest}", status.st_size, descriptor)


def _check(name: str, path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise failed("OutputRefused", f"output {name}: {path} is a folder; leave a single file (a tar, say)")
    if status.st_nlink != 1:
        raise failed(
            "OutputRefused", f"output {name}: {path} has {status.st_nlink} names (hard links); write a copy instead"
        )
    if status.st_size > MAX_OUTPUT:
        raise failed("OutputRefused", f"output {name}: {path} has {status.st_size} octets; the most is {MAX_OUTPUT}")
