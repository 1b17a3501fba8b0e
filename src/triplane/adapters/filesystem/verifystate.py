"""Where a verification of the log stopped: a file to go on from, sealed with a key of this installation.

The seal (HMAC-SHA-256) keeps others from claiming that entries were verified which were not; the key lies with the
secrets, not beside the file. The hashes in it are held against a signed checkpoint all the same.
"""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from triplane.audit.tiles import WIDTH
from triplane.audit.verifying import TreeState
from triplane.errors import InvalidInput

KEY: Final = "verify_state_key"
_OCTETS: Final = 32


class VerifyState:
    """The file ``path``, for the log of ``origin``; the key is ``<folder>/verify_state_key``, made when needed."""

    def __init__(self, path: Path, folder: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._key = _key(folder)

    def read(self) -> TreeState | None:
        """What was written last; None when nothing was.

        Raises ``InvalidInput`` when it is of another log, or its seal does not hold.
        """
        try:
            octets = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be read: {error.strerror}") from error
        try:
            document = orjson.loads(octets)
            seal = bytes.fromhex(document.pop("seal"))
            if not hmac.compare_digest(seal, self._seal(document)):
                raise ValueError("its seal does not hold")
            if document["origin"] != self._origin:
                raise InvalidInput(f"{self._path} is of the log {document['origin']}, this one is {self._origin}")
            peaks = tuple(bytes.fromhex(peak) for peak in document["peaks"])
            state = TreeState(document["size"], peaks, document["leaf"], document["time"])
            if state.size % WIDTH:
                raise ValueError(f"{state.size} is not at a tile's edge")
            state.root()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{self._path} was altered, or written elsewhere ({error}): remove it and verify from the beginning"
            ) from error
        return state

    def write(self, state: TreeState) -> None:
        """Replace it, whole or not at all. Raises ``InvalidInput``."""
        document: dict[str, Any] = {
            "origin": self._origin,
            "size": state.size,
            "peaks": [peak.hex() for peak in state.peaks],
            "leaf": state.leaf,
            "time": state.time,
        }
        if self._path.exists() and not self._path.is_file():
            raise InvalidInput(f"{self._path} is no file, and none takes its place: name another for the state")
        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            with partial.open("xb") as file:
                file.write(orjson.dumps({**document, "seal": self._seal(document).hex()}))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _seal(self, document: dict[str, Any]) -> bytes:
        return hmac.digest(self._key, orjson.dumps(document, option=orjson.OPT_SORT_KEYS), sha256)


def _key(folder: Path) -> bytes:
    path = folder / KEY
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = secrets.token_bytes(_OCTETS)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be used: {error.strerror}") from error
    if len(key) != _OCTETS:
        raise InvalidInput(f"{path} is damaged: remove it, and the states it sealed")
    return key
