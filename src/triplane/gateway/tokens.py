"""Run tokens: ``trp1.<payload>.<signature>``, Ed25519 (RFC 8032), minted by the gateway alone.

Two keys overlap: the newest signs, both verify, so a rotation ends no running run. A token says only which run it
speaks for; whether that run still lives is asked of the session store at every call.
"""

import base64
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from triplane.errors import InvalidInput

PREFIX: Final = "trp1."
KEPT_KEYS: Final = 2
_KEY_FILE = re.compile(r"([0-9]{6})\.pem")
_PART = re.compile(r"[A-Za-z0-9_-]{1,1024}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RunClaim:
    """What a genuine token says."""

    session_uid: str
    run: int


class RunTokens:
    """Mints and verifies run tokens with the keys of a folder; sees a rotation at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[str, ...] = ()
        self._keys: tuple[Ed25519PrivateKey, ...] = ()
        if not _key_files(folder):
            rotate(folder)
        self._reload()

    def mint(self, session_uid: str, run: int, *, issued_at: int) -> str:
        """The token of this run; ``issued_at`` is Unix time in seconds, for people who read tokens."""
        self._reload()
        payload = orjson.dumps({"sub": session_uid, "run": run, "iat": issued_at}, option=orjson.OPT_SORT_KEYS)
        signed = PREFIX + _encode(payload)
        return f"{signed}.{_encode(self._keys[-1].sign(signed.encode()))}"

    def verify(self, token: str) -> RunClaim | None:
        """What the token says, or None for anything that one of the kept keys did not sign."""
        parts = token.removeprefix(PREFIX).split(".")
        if not token.startswith(PREFIX) or len(parts) != 2 or not all(map(_PART.fullmatch, parts)):
            return None
        try:
            payload, signature = (_decode(part) for part in parts)
        except ValueError:
            return None
        self._reload()
        signed = f"{PREFIX}{parts[0]}".encode()
        if not any(_signed_by(key.public_key(), signed, signature) for key in self._keys):
            return None
        document = orjson.loads(payload)
        return RunClaim(document["sub"], document["run"])

    def _reload(self) -> None:
        """Read the folder again when its list of keys has changed: a name never gets other content."""
        files = _key_files(self._folder)[-KEPT_KEYS:]
        stamp = tuple(path.name for path in files)
        if stamp != self._stamp:
            self._keys = tuple(_load(path) for path in files)
            self._stamp = stamp


def rotate(folder: Path) -> Path:
    """Make a new signing key and drop all but the two newest; returns the new key's file.

    Tokens of the key before stay valid until the next rotation.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    octets = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    while True:
        files = _key_files(folder)
        number = 1 + (int(files[-1].stem) if files else 0)
        path = folder / f"{number:06d}.pem"
        if _write_new(path, octets):
            break
    for old in _key_files(folder)[:-KEPT_KEYS]:
        old.unlink(missing_ok=True)
    return path


def _write_new(path: Path, octets: bytes) -> bool:
    """Write the whole file under its name, or nothing; False if the name is taken."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        os.link(scratch, path)
    except FileExistsError:
        return False
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _key_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _KEY_FILE.fullmatch(path.name))


def _load(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is not an Ed25519 key; remove it and rotate the gateway's keys")
    return key


def _signed_by(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Unpadded base64url; refuses a second spelling of the same octets (RFC 4648, section 3.5)."""
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(octets) != text:
        raise ValueError("not canonical base64url")
    return octets
