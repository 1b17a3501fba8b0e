"""Whom the caller of a command believes about a log: the options, and what is read from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triplane.errors import InvalidInput

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


def read_file(path: Path, most: int = 1 << 24) -> bytes:
    """The octets of a file that was named. Raises ``InvalidInput``: without it nothing can be found out."""
    try:
        if path.stat().st_size > most:
            raise InvalidInput(f"{path} is over {most} octets: it is not what you take it for")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def write_file(path: Path, octets: bytes) -> None:
    """Whole or not at all. Raises ``InvalidInput``."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(octets)
        partial.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
