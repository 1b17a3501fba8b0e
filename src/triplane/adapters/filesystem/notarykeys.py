"""The keys that sign checkpoints, in ``<secrets>/notary``: apart from those of attestations, and from the database.

A rotation is three steps of a person: a new key signs beside the old one; readers pin the new one too; the old one is
retired, and destroyed. What it signed is still read: its public half stays.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from triplane.adapters.filesystem.signingkeys import Ed25519Signer, SigningKeyFolder
from triplane.audit.dsse import key_id_of, load_public_key
from triplane.errors import InvalidInput, Unavailable

FOLDER: Final = "notary"
"""Below the folder of secrets."""


class NotaryKeyFolder:
    """``triplane.ports.NotaryKeys``."""

    def __init__(self, secrets: Path) -> None:
        self._folder = secrets / FOLDER
        self._keys = SigningKeyFolder(secrets, FOLDER, "triplane log keys rotate")

    def signers(self) -> Sequence[Ed25519Signer]:
        """See ``NotaryKeys.signers``."""
        current = self._keys.current()
        others = [key_id for key_id in self._keys.list_ids() if key_id != current.key_id]
        return [current, *(self._keys.load(key_id) for key_id in others)]

    def retired(self) -> Sequence[bytes]:
        """See ``NotaryKeys.retired``."""
        keys = []
        for path in sorted(self._folder.glob("*.pub")):
            try:
                octets = path.read_bytes()
            except OSError as error:
                raise Unavailable(f"{path} cannot be read: {error}; the operator must own it") from error
            load_public_key(octets)
            if key_id_of(octets) != path.stem:
                raise InvalidInput(f"{path} holds key {key_id_of(octets)}: somebody exchanged it; restore or remove it")
            keys.append(octets)
        return keys

    def rotate(self) -> Ed25519Signer:
        """Make a new key; it signs from now on, and the old ones beside it."""
        self._keys.current()  # the first, should there be none
        return self._keys.rotate()

    def retire(self, key_id: str) -> bytes:
        """Destroy a private key that a newer one has joined, keep its public half, and return that.

        Raises ``InvalidInput`` for the newest one and for one that is not there.
        """
        found = [signer for signer in self.signers() if signer.key_id == key_id]
        if not found:
            raise InvalidInput(f"no key {key_id} signs here: `triplane log keys list` shows those that do")
        public = found[0].public_key
        if self._keys.current().key_id == key_id:
            raise InvalidInput(f"key {key_id} is the newest: run `triplane log keys rotate` first, and pin the new one")
        path = self._folder / f"{key_id}.pub"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(public)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error}") from error
        if not self._keys.discard(key_id):
            raise Unavailable(f"the private key {key_id} in {self._folder} cannot be removed: remove it by hand")
        return public
