"""Whom the caller of a command believes about a log: the options, and what is read from them."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from triplane.errors import InvalidInput, InvalidNote, NotFound

if TYPE_CHECKING:
    from triplane.audit.checkpoint import CheckpointTrust

KeysOption = Annotated[
    list[str] | None,
    typer.Option("--key", help="The log's key, <origin>+<id>+<base64>; again for each while they change."),
]
WitnessesOption = Annotated[
    list[str] | None, typer.Option("--witness", help="Key of a witness that must have cosigned; may be repeated.")
]
QuorumOption = Annotated[
    int | None, typer.Option("--quorum", help="So many of the witnesses; default: all.", min=0, show_default=False)
]
ArchiveOption = Annotated[
    Path | None,
    typer.Option("--archive", metavar="DIR", help="Where `triplane log archive` keeps the oldest entries."),
]

NO_KEY = "whose signature is to be checked? No key of the log is readable here: give --key"
_TILE_OCTETS = 1 << 25
"""More than 256 of the longest entries have."""


def trust_of(keys: list[str], witnesses: list[str] | None, quorum: int | None) -> "CheckpointTrust":
    """Raises ``InvalidInput`` when a key is malformed, or keys are of several logs."""
    from triplane.audit.checkpoint import CheckpointTrust
    from triplane.audit.notekey import KeyRing, parse_key

    ring = KeyRing(parse_key(text.strip()) for text in dict.fromkeys(keys))
    names = {key.name for key in ring.keys}
    if len(names) != 1:
        raise InvalidInput(f"the keys are of several logs, {', '.join(sorted(names))}: give those of one")
    seen = KeyRing(parse_key(text.strip()) for text in dict.fromkeys(witnesses or ()))
    return CheckpointTrust(names.pop(), ring, seen, len(seen.keys) if quorum is None else quorum)


def installation_trust(keys: list[str] | None, origin: str) -> "CheckpointTrust":
    """Trust in the keys that were given, or else in this installation's own. Raises ``InvalidInput`` where there are
    neither."""
    from triplane.cli.connect import settings
    from triplane.wiring import own_trust

    trust = trust_of(keys, None, None) if keys else own_trust(settings(), origin)
    if trust is None:
        raise InvalidInput(NO_KEY)
    return trust


def read_file(path: Path, most: int = 1 << 24) -> bytes:
    """The octets of a file that was named. Raises ``InvalidInput``: without it nothing can be found out."""
    try:
        return read_regular(path, most)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def read_checkpoint(path: Path, trust: "CheckpointTrust | None" = None) -> bytes:
    """The octets of a checkpoint's file; with ``trust``, of one that was signed. Raises ``InvalidNote`` and
    ``InvalidInput``, which name the file."""
    from triplane.audit.export import signed_or_said

    octets = read_file(path)
    try:
        signed_or_said(octets, trust)
    except InvalidNote as error:
        raise InvalidNote(f"{path}: {error}", reason=error.reason) from error
    return octets


def read_regular(path: Path, most: int, *, links: bool = True) -> bytes:
    """The octets of a regular file, of which at most so many are read, whatever it says of its size. Without ``links``
    none is followed: what lies in a folder may come from anybody. Raises ``InvalidInput``, ``OSError``."""
    with _regular(path, links=links) as file:
        octets = file.read(most + 1)
    if len(octets) > most:
        raise InvalidInput(f"{path} is over {most} octets: it is not what you take it for")
    return octets


def tiles_in(folder: Path) -> Callable[[str], bytes]:
    """The files of an exported or archived log. What is called raises ``NotFound`` and ``InvalidInput``."""

    def read(path: str) -> bytes:
        try:
            return read_regular(folder / path, _TILE_OCTETS, links=False)
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there") from error
        except OSError as error:
            raise InvalidInput(f"{folder / path} cannot be read: {error.strerror}") from error

    return read


def _regular(path: Path, *, links: bool) -> BufferedReader:
    # Opening a FIFO would wait for its writer, unless told not to.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def digest_of_file(path: Path, *, links: bool = True) -> str:
    """Of a regular file of any size. Raises ``InvalidInput``."""
    try:
        with _regular(path, links=links) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which is at ``path`` whole or not at all. What is there and is no file (a device, a pipe) is
    written to as it is: put in its place, a file would take ``/dev/null`` from the whole machine. Raises
    ``InvalidInput``."""
    apart = path.is_file() or not path.exists()
    target = path.with_name(f".{path.name}.partial") if apart else path
    try:
        with target.open("wb") as file:
            yield file
        if apart:
            target.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if apart:
            target.unlink(missing_ok=True)
