"""The operator's signing keys in a folder: one PEM file per key, and a file that names the one that signs.

Every change is one rename or link, so that a crash leaves the state before or after it, and a process that looks at the
same time sees one of the two. Private keys are files of their owner alone (0600) and are never replaced.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from triplane.audit.dsse import key_id_of, spki_of
from triplane.errors import InvalidInput, Unavailable

FOLDER: Final = "signing"
"""Below the folder of secrets."""
CURRENT: Final = "current"
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Ed25519Signer:
    """``triplane.audit.dsse.Signer`` with a key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public_key = spki_of(key.public_key())
        self._key_id = key_id_of(self._public_key)

    @property
    def key_id(self) -> str:
        return self._key_id

    @property
    def public_key(self) -> bytes:
        return self._public_key

    def sign(self, octets: bytes) -> bytes:
        """RFC 8032: the same for the same octets."""
        return self._key.sign(octets)


class SigningKeyFolder:
    """``triplane.ports.SigningKeys`` in ``<secrets>/signing``, or another folder there; ``rotation`` is the command
    that makes a new one."""

    def __init__(self, secrets: Path, folder: str = FOLDER, rotation: str = "triplane keys rotate") -> None:
        self._folder = secrets / folder
        self._rotation = f"run `{rotation}`"
        self._read: tuple[tuple[int, int, int], Ed25519Signer] | None = None

    def current(self) -> Ed25519Signer:
        """See ``SigningKeys.current``. One ``stat`` while nothing has changed."""
        path = self._folder / CURRENT
        try:
            found = path.stat()
        except FileNotFoundError:
            self._begin()
            found = self._stat(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error}; the operator must own it") from error
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._read is None or self._read[0] != mark:
            self._read = mark, self.load(self._text(path).strip())
        return self._read[1]

    def rotate(self) -> Ed25519Signer:
        """See ``SigningKeys.rotate``."""
        made = self._make()
        self._point_at(made.key_id)
        return made

    def discard(self, key_id: str) -> bool:
        """See ``SigningKeys.discard``."""
        path = self._path(key_id)
        if self._text(self._folder / CURRENT).strip() == key_id:
            raise InvalidInput(f"key {key_id} signs now: {self._rotation} first")
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def list_ids(self) -> Sequence[str]:
        """See ``SigningKeys.list_ids``."""
        try:
            return sorted(path.stem for path in self._folder.glob("*.pem") if _ID.fullmatch(path.stem))
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be read: {error}") from error

    def _begin(self) -> None:
        """The first key, unless another process makes it at the same time: then that one."""
        made = self._make()
        scratch = self._scratch(made.key_id)
        try:
            (self._folder / CURRENT).hardlink_to(scratch)  # unlike rename it never replaces what is there
        except FileExistsError:
            with suppress(OSError):
                self._path(made.key_id).unlink()
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot hold a key: {error}") from error
        finally:
            scratch.unlink()

    def _make(self) -> Ed25519Signer:
        key = Ed25519PrivateKey.generate()
        made = Ed25519Signer(key)
        octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._path(made.key_id), octets)
        except OSError as error:
            raise Unavailable(
                f"no signing key can be made in {self._folder}: {error}; make the folder writable, or put one there"
            ) from error
        return made

    def _point_at(self, key_id: str) -> None:
        scratch = self._scratch(key_id)
        try:
            scratch.replace(self._folder / CURRENT)
            _sync_folder(self._folder)
        except OSError as error:
            raise Unavailable(f"{self._folder / CURRENT} cannot be replaced: {error}") from error

    def _scratch(self, key_id: str) -> Path:
        path = self._folder / f".{CURRENT}.{token_hex(4)}"
        try:
            _write(path, f"{key_id}\n".encode())
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be written: {error}") from error
        return path

    def load(self, key_id: str) -> Ed25519Signer:
        """The key of this id. Raises ``Unavailable`` when it cannot be read, ``InvalidInput`` when it is another."""
        path = self._path(key_id)
        try:
            octets = path.read_bytes()
        except OSError as error:
            raise Unavailable(f"the signing key {path} cannot be read: {error}; {self._rotation}") from error
        try:
            key = load_pem_private_key(octets, None)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{path} is no private key: {error}; {self._rotation}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInput(f"{path} is no Ed25519 key; {self._rotation}")
        signer = Ed25519Signer(key)
        if signer.key_id != key_id:
            raise InvalidInput(f"{path} holds key {signer.key_id}: somebody exchanged it; {self._rotation}")
        return signer

    def _path(self, key_id: str) -> Path:
        if not _ID.fullmatch(key_id):
            raise InvalidInput(f"{self._folder / CURRENT} names {key_id!r}, which is no key id")
        return self._folder / f"{key_id}.pem"

    def _stat(self, path: Path) -> os.stat_result:
        try:
            return path.stat()
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error}") from error

    @staticmethod
    def _text(path: Path) -> str:
        try:
            return path.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise Unavailable(f"{path} cannot be read: {error}") from error


def _write(path: Path, octets: bytes) -> None:
    """A new file of the owner alone, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
