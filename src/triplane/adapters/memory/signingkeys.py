"""Signing keys in memory: the twin of the folder's, for tests and for trying things out. The same seed gives the same
keys."""

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from triplane.audit.dsse import key_id_of, spki_of
from triplane.errors import InvalidInput


class MemorySigner:
    """``triplane.audit.dsse.Signer`` of a seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
        self.public_key = spki_of(self._key.public_key())
        self.key_id = key_id_of(self.public_key)

    def sign(self, octets: bytes) -> bytes:
        return self._key.sign(octets)


class MemorySigningKeys:
    """``triplane.ports.SigningKeys`` in this process."""

    def __init__(self, seed: bytes = b"triplane") -> None:
        self._seed = seed
        self._made = 0
        self._keys: dict[str, MemorySigner] = {}
        self._current = self.rotate()

    def current(self) -> MemorySigner:
        """See ``SigningKeys.current``."""
        return self._current

    def rotate(self) -> MemorySigner:
        """See ``SigningKeys.rotate``."""
        self._made += 1
        self._current = MemorySigner(b"%b %d" % (self._seed, self._made))
        self._keys[self._current.key_id] = self._current
        return self._current

    def discard(self, key_id: str) -> bool:
        """See ``SigningKeys.discard``."""
        if key_id == self._current.key_id:
            raise InvalidInput(f"key {key_id} signs now: rotate first")
        return self._keys.pop(key_id, None) is not None

    def list_ids(self) -> Sequence[str]:
        """See ``SigningKeys.list_ids``."""
        return sorted(self._keys)
